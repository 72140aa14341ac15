// Package catalog is what a client may see of a snapshot, by name: it satisfies [xds.Catalog] with the resources that
// package envoy builds, and says which of them a step between snapshots can change.
//
//	view + name -> memory of the snapshot, or package envoy once -> xds.Resource
//	mesh.Diff(old, now) -> services, clusters, policies touched -> (type, name)s that may differ
//
// What was built is kept in the snapshot under the part of the view that it depends on, so one translation serves every
// client that shares it. Whenever [Catalog.Changed] was computed for a step, what it does not name goes over into the
// memory of the newer snapshot: a client that connects while the mesh changes costs what changed, not what exists.
//
// Guarantees: applying Changed step by step gives what translation from scratch gives, and Get gives the same whatever
// is remembered; property tests hold both. Memory has only names that exist, so a client cannot fill it, and no result
// keeps a snapshot alive.
//
// It never decides what a resource says.
package catalog
