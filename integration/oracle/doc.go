// Package oracle asks Envoy what is right. Its test serves the same xDS resources to a real Envoy and to the Go sidecar,
// sends both the same requests, and compares what comes of them: statuses, response flags, what the upstreams saw, and
// how requests are spread.
//
// Cases is the table; each case has a virtual host and clusters of its own, so that one listener of one Envoy serves
// them all. What differs on purpose is in accepted, with its reason, and must differ exactly so: a difference that
// disappears fails too. docs/envoy-parity.md tells users of both.
//
// It holds nothing but tests.
package oracle
