// Package kube is the source of services and endpoints that the cluster's own API server knows: Services,
// EndpointSlices, Pods, Nodes and ServiceExports (KEP-1645). It is the only package that links client-go.
//
//	API server -> reflectors -> records (read.go) -> convert.State -> which Services does it concern?
//	  -> convert.State.Convert -> what differs from last time? -> clusteragent.Sink
//
// It guarantees that silence withdraws nothing. A list counts when it is complete; a watch that breaks or expires, an
// API server that is gone, a list that fails change nothing; and nothing at all is told before each of the resources
// was listed once, so that after a restart what the disk says stays in force until then. A change goes out at once,
// and whatever else arrives meanwhile goes out together.
//
// A pod whose sidecar announces itself to the agent (package workload) counts once: its endpoint leaves the slice of
// its EndpointSlice and stands in the one that the sidecar announced, with the sidecar's identity, ports and weight
// and the worse health of the two. The two are the same if their Service and address are.
//
// Full objects are not kept: each is cut down to a record as it is decoded. The package writes nothing to the API
// server but the conditions of ServiceExports. Rules by which objects are understood: package convert, and
// docs/kubernetes.md.
package kube
