// Package config is what a proxy has been told to do: Envoy's listeners, routes, clusters and endpoints as plain,
// immutable, validated Go values, and what matching them against a connection or request means.
//
// Inner code sees no protobuf: it is decoded and checked once, in the packages below.
//
//	update -> builder: field, downstream, upstream -> next Config -> watch.Value -> listeners, router, balancer
//
// Sub-objects that an update does not touch are pointer-identical in the next Config, so that pools, balance sets and
// listeners that hang on them survive.
//
// References are by name and may dangle, as in Envoy: a route to a cluster that is not there yet answers 503 (flag
// NC), a cluster whose endpoints have not arrived answers 503 (flag UH), a listener whose routes have not arrived
// answers 404 (flag NR). The order in which xDS servers send (clusters, endpoints, listeners, routes, removals)
// makes that window empty in practice; holding the update back instead would let one missing cluster keep every
// other route stale.
package config
