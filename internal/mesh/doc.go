// Package mesh is the domain: what the mesh consists of, as immutable values in one versioned ordered map.
//
// Every object has one [Key]; the kind is the key's prefix, so a "table" is a key range. A [Store] has one
// current [Snapshot]; [Store.Commit] makes the next one from a [Delta], and [Diff] of two snapshots is the only
// notion of change. On the global side the raft FSM calls Commit with the log index; an agent counts commits.
//
//	snapshot, next := store.Latest()
//	for key, change := range mesh.Diff(previous, snapshot) { ... }
//	<-next
//
// Objects are not written after they are committed. Nothing here reads a clock, opens a socket or knows
// protobuf, Kubernetes or Envoy.
package mesh
