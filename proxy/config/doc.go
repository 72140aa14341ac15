// Package config is what a proxy has been told to do: Envoy's listeners, routes, clusters and endpoints as plain,
// immutable, validated Go values.
//
// A [Builder] holds the current resources by type. Each xDS update is decoded and checked once, here, and nowhere
// after: inner code sees no protobuf. A resource that cannot be done as asked is refused with an error that names
// resource and field (it becomes the NACK) and its last good version stays; the other resources of the update are
// applied, as Envoy does, so that one bad resource does not hold up the rest. Sub-objects that an update does not
// touch are pointer-identical in the next Config, so that pools, balance sets and listeners that hang on them
// survive.
//
// The removal of routes or endpoints that are there and that something still refers to is not believed: "unknown" is
// never "empty". They go with the last listener or cluster that names them. Of those that never came, "removed" says
// that there are none (xDS: the answer to a subscription to what does not exist).
//
// References are by name and may dangle, as in Envoy: a route to a cluster that is not there yet answers 503 (flag
// NC), a cluster whose endpoints have not arrived answers 503 (flag UH), a listener whose routes have not arrived
// answers 404 (flag NR). The order in which xDS servers send (clusters, endpoints, listeners, routes, removals)
// makes that window empty in practice; holding the update back instead would let one missing cluster keep every
// other route stale.
//
//	update -> decode and check -> next Config -> watch.Value -> listeners, router, balancer
//
// It never dials, never reads a clock, and never changes a Config that it has published.
package config
