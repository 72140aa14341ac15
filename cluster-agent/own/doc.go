// Package own is the agent's own cluster in the mesh state: what each source says, merged into one store.
//
// Several sources (the services file, the sidecars, Kubernetes, etcd, the trust domain's bundle) may speak of one key;
// one of them wins (see precedence), and what it shadows comes back when it goes. Each source writes its own layer
// only, so no source can remove what another said, and a source that has not been read yet removes nothing at all.
//
//	source -> Table.Apply or Replace -> which effective objects changed? -> mesh.Store.Update
//
// It never holds objects of other clusters, and never writes a change that changes nothing.
package own
