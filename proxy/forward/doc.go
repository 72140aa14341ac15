// Package forward carries requests and connections on: permit -> route -> cluster -> host -> (mutual TLS) -> request.
// Both directions use it: outbound to the mesh, inbound to the application.
//
// [Clusters] is what runs behind the configuration: one balance.Set, one TLS configuration and one pool of
// connections per Envoy cluster. A new configuration makes a new [View]; parts whose configuration did not change
// are the same objects in the next View, and a request uses the View with which it began until it ends.
//
// A [Call] is one request's way through route, cluster, attempts, limits and outlier reports, whatever protocol it
// came in; HTTP/1.1 is served here, HTTP/2 elsewhere with the same Calls. To a cluster that speaks HTTP/2 only, a
// [Carrier] makes what looks like an HTTP/1.1 connection for one exchange; all else is as ever.
//
//	view.Start(call, request) -> call.Next: host -> dial or reuse -> send -> call.Done -> call.Again? -> relay -> call.End
//
// The upstream's identity is verified in every handshake against the cluster's exact SPIFFE IDs; nothing is sent
// before. A response that was cut upstream is cut downstream. Nothing is sent twice unless the route's retry policy
// asks for it, or a kept connection turned out dead under an idempotent request. Nothing at all is sent without an
// authz.Permit.
package forward
