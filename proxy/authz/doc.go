// Package authz decides whether a request or connection may pass: Envoy's RBAC rules, evaluated on the verified
// identity of the peer, the normalised path, and all values of a header.
//
// The decision is a [Permit], which forwarding demands: there is no way around asking. What would deny is looked at
// before what would allow; a condition on what is not there does not hold. Pure: no clock, no network, no I/O.
package authz
