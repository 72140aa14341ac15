// Package grpc is the command that prints the bootstrap of gRPC clients without a sidecar.
package grpc
