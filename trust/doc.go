// Package trust is what a process can prove of itself and whom it can verify, and the TLS that follows from it.
//
// [Material] is one immutable version: own X.509-SVID and the bundle of every trust domain, each domain's own.
// A [Source] yields the latest; TLS configurations read it at each handshake, so rotation needs no restart and
// interrupts no connection. A peer is verified against the bundle of its own trust domain only (SPIFFE Trust
// Domain and Bundle, section 5), and an [Authorizer] decides on its SPIFFE ID; there is no other way in.
//
// Sub-packages: spire speaks the SPIRE server API, authority is the embedded stand-in for SPIRE.
package trust
