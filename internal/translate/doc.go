// Package translate decides what a client gets of the mesh, and why: a pure function of (Snapshot, View).
//
// [Assign] is the one place where it is decided which endpoints a client gets: EDS serialises its result, "explain"
// prints it, package shares says what Envoy makes of it. Beside it are the questions that every resource asks:
// which ports, subsets, identities and policies a service has for a [View]. Package envoy builds the resources,
// package catalog finds them by name and knows what a change affects:
//
//	mesh <- translate <- translate/envoy <- translate/catalog
//
// All functions are pure: equal input gives equal output on every replica and in every agent, whether it knows another
// network's endpoints or only what [Summarize] says of them.
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
//   - A DestinationRule or VirtualService counts if it is in the client's namespace, the service's, or the root
//     namespace, in this order; one elsewhere cannot redirect other people's traffic. Where Istio lets the older of one
//     namespace come first, the first by name does.
//   - An east-west gateway spreads over all endpoints of its network at one level, because its clients count on the
//     weight of all of them. It knows the subsets of every rule that applies to its cluster.
//   - A failoverPriority label that is neither topology nor given a value ("label=value") is empty for the client:
//     endpoints are shared by all workloads of a locality and namespace.
//   - TCP without interception has one listener a port number; where services share one, the client's namespace wins,
//     then the first by namespace and name.
package translate
