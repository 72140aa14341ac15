// Package grpc has gRPC clients of the mesh that have no sidecar: real processes with gRPC's own xDS client, whose
// configuration comes from an agent or a controller and whose identity from the SPIFFE Workload API, through files.
// The servers they call have Periplus's sidecars.
//
// The client is this package's test binary, started again: what gRPC does with xDS depends on environment variables
// that it reads when the process begins.
package grpc
