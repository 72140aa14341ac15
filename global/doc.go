// Package global is one replica of the global controller: it wires the sub-packages together and owns the listeners.
//
//	mesh listener (TLS 1.3, gRPC)   AgentService, aggregated discovery, PeerService
//	raft listener (TLS 1.3)         replicas only
//	admin listener (TLS 1.3)        Connect API for operators
//	dashboard listener (plain)      read-only API, static files, /metrics, /ready
//
// A client is what its verified certificate says: the control plane's own root vouches for controllers, agents and
// operators; each cluster's bundle, as the mesh agreed on it, for that cluster's workloads and gateways. [Run] blocks
// until its context is done and leaves nothing behind.
package global
