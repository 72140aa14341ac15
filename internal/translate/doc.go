// Package translate turns (Snapshot, View) into assignments with reasons and into Envoy resources.
//
// [Assign] is the one place where it is decided which endpoints a client gets: EDS serialises its result, "explain"
// prints it. Everything else here is serialisation. [View.Catalog] hands the resources to package xds; a result is
// kept in the snapshot under the part of the view that it depends on, and [mesh.Diff] tells which names a step
// between snapshots can change:
//
//	Assign(snapshot, view, request) -> Assignment -> ClusterLoadAssignment -> xds.Resource, once a snapshot
//	mesh.Diff(old, now) -> services, clusters, policies touched -> (type, name)s that may differ
//
// Applying Changed step by step gives what translation from scratch gives; a property test holds it. All functions
// are pure: equal input gives equal bytes on every replica and in every agent, whether it knows another network's
// endpoints or only their summaries.
//
// Where the field has rules they are followed: Istio's for localities, subsets, routes and authorization, Envoy's
// for load. What differs, on purpose:
//
//   - Failover by distance is always on; Istio wants outlierDetection before it considers locality at all.
//   - A gateway's entry has the gateway's own locality and the true weight behind it, and each address is there once.
//     Its labels are those of its topology: a failoverPriority by other labels does not see through a gateway.
//   - A gateway is a way, not capacity: unhealthy ones are left out while a healthy one leads to the same place.
//   - An endpoint without an identity is left out where others of the service have one, and across networks: mutual
//     TLS is not negotiable per endpoint.
//   - Draining endpoints are left out (as Istio does without persistent sessions): proxies finish what they have.
//   - A drained cluster's endpoints are used when nothing healthy is left elsewhere: better there than nowhere.
//   - healthy_panic_threshold is always sent: 0, or minHealthPercent, as in Istio, which sends unhealthy endpoints too.
//   - A DestinationRule or VirtualService counts if it is in the client's namespace, the service's, or the root
//     namespace, in this order; one elsewhere cannot redirect other people's traffic.
//   - An east-west gateway spreads over all endpoints of its network at one level, because its clients count on the
//     weight of all of them. It knows the subsets of every rule that applies to its cluster.
//   - A failoverPriority label that is neither topology nor given a value ("label=value") is empty for the client:
//     endpoints are shared by all workloads of a locality and namespace.
//   - TCP without interception has one listener a port number; where services share one, the client's namespace wins,
//     then the first by namespace and name.
package translate
