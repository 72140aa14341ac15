// Package admin is what people and tools ask the global controller: registration, policies, questions about the mesh.
//
// Two listeners serve the same Connect handlers (gRPC, gRPC-Web, JSON). [New] gives both:
//
//   - Admin needs an operator's certificate, verified by TLS, and serves everything. Who did something is taken from
//     that certificate only.
//   - Dashboard needs none and serves only procedures that the protos mark NO_SIDE_EFFECTS, static files, metrics and
//     readiness. No request to it can change anything.
//
// Reads are answered from the local snapshot and observations; writes are proposed, from whatever replica they reach.
package admin
