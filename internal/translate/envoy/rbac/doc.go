// Package rbac turns AuthorizationPolicies into Envoy's RBAC, with Istio's meaning: which policies select a workload, DENY
// before ALLOW, one Envoy policy for each rule.
//
//	(snapshot, view, labels) -> Rules -> package envoy puts them into a listener
//
// Where a rule cannot be seen to hold, it fails closed: on a TCP port an ALLOW rule that asks for HTTP never matches and a
// DENY rule matches without it. All functions are pure.
package rbac
