// Package etcd tests the registry of clusters without Kubernetes with a real etcd and real processes: workloads that
// are registered in one cluster and used from another, leases that end, etcd that is stopped, compacted, filled with
// nonsense or emptied, and agents that are cut off from it or restarted without it.
package etcd
