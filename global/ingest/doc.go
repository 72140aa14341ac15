// Package ingest takes what the clusters' agents report into the mesh state.
//
// The verified peer certificate is the cluster; nothing in a message is. Each object must lie within the cluster's
// registration ([Check]): its own name, networks, addresses, namespaces, region and trust domain. What does not is
// rejected by itself, with a reason, counted and logged; the rest is applied.
//
//	Hello -> new epoch, by compare-and-swap -> Welcome{what the mesh has}
//	Update -> throttle -> check each object -> coalesce with other clusters' -> one raft entry -> Ack
//
// An entry's part applies only if its (epoch, sequence) is newer than the cluster's cursor, so an older session,
// wherever its proposal still travels, can never undo a newer one. A lone update is proposed at once; while one
// proposal is in flight, all others wait together for the next. Nothing is removed but by an agent's delete.
package ingest
