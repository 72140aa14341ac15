// Package etcd is the registry of workloads of a cluster without Kubernetes. It is kept in etcd, at
//
//	PREFIX/CLUSTER/services/NAMESPACE/NAME                 what a service is; by people, without a lease
//	PREFIX/CLUSTER/endpoints/NAMESPACE/SERVICE/WORKLOAD    a workload, by itself or who starts it; under its lease
//	PREFIX/CLUSTER/sidecars/NAMESPACE/SERVICE/WORKLOAD     a workload whose sidecar announced itself; by an agent
//
// A value is what a services file would say of it (see package file): of a service its document, of a workload one
// document of kind Endpoints with itself, and before it, if it likes, one of kind Service. A service without a record
// of its own has the ports that its workloads say together, and is exported if one of them says so.
//
//	list at a revision -> Replace -> watch from there -> what changed? -> Apply
//
// What it guarantees:
//   - A gap in the watch (compaction, a restored backup, silence) is closed by a list, never passed over.
//   - etcd out of reach withdraws nothing, nor does time that passes meanwhile.
//   - A value that is wrong changes nothing: the last good one of its key stays in force. Everything else goes on.
//   - A workload whose lease ended is unhealthy at once and gone after GracePeriod, as one whose sidecar's stream was
//     lost. It is gone at once if it was deleted while draining, or had no lease.
//   - If most workloads vanish together, or a list has nothing where there was something, then it is etcd that lost
//     them: they stay as they were for three times GracePeriod, in which those that live write themselves again.
//
// The leases are etcd's: it counts their time itself, and gives all of them their whole TTL anew when a leader is
// elected. So an outage of etcd that is longer than the leases ends none of them.
//
// A Holder is the other side: it keeps records under one lease for as long as it runs, and takes a new lease when
// the old one is lost. With it the source writes what sidecars announce to its agent; what it wrote itself it does
// not read back. It never writes outside its own folder, and never deletes what it has not written.
package etcd
