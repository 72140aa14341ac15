// Package envoy builds Envoy's resources from what package translate decides: clusters, endpoints, listeners with
// their authorization, and routes. It is serialisation: which endpoints a client gets, which policy is in force and
// what a service consists of is translate's to say, and which resources exist is catalog's.
//
//	(snapshot, view, request) -> translate -> proto message, without reasons
//
// What AuthorizationPolicies mean is package rbac's to say. All functions are pure: equal input gives equal messages on
// every replica and in every agent. They panic on nothing that a mesh can contain, and what they build passes Envoy's own
// validation; the golden files in package catalog show every kind, by behaviour.
//
// What differs from Istio, on purpose:
//
//   - The default retry policy is Istio's for requests that must not be repeated, with reset-before-request; GET, HEAD
//     and OPTIONS are also retried on reset, so that an endpoint that is killed fails none of them. Hence a route with
//     default retries is two entries.
//   - healthy_panic_threshold is always sent: 0, or minHealthPercent.
//   - Retries have a budget, 20 % of the requests or 100, instead of no limit, unless maxRetries is set.
//   - TCP without interception has one listener a port number.
package envoy
