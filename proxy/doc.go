// Package proxy is the sidecar: it carries a workload's requests into the mesh and the mesh's to the workload, and does
// exactly what xDS says. It knows no service, policy or cluster but through its configuration.
//
// [Run] wires the parts together and owns every goroutine:
//
//	Workload API -> trust.Source ------------------------------+
//	agent or controller -> ads -> config/builder -> Config ----+-> listeners -> inbound, outbound -> forward, http2
//	application <- probe -> announcement -> agent              +-> health checks, admin
//
// Guarantees: with no control plane it serves what it last knew, from memory, and after a restart from disk. A
// resource that it cannot follow is refused and named, and the last good one stays. A listener that cannot be bound
// leaves the others alone and is tried again. It is ready once it has its configuration and all its listeners are
// bound, and announced to the agent no earlier. When it is told to stop, it first says so, and ends when the requests
// that run have ended.
package proxy
