// Package trust is what a process can prove of itself and whom it can verify, and the TLS that follows from it.
//
// [Material] is one immutable version: own X.509-SVID and the bundle of every trust domain, each domain's own.
// A [Source] yields the latest; TLS configurations read it at each handshake, so rotation needs no restart and
// interrupts no connection. A peer is verified against the bundle of its own trust domain only (SPIFFE Trust
// Domain and Bundle, section 5), and an [Authorizer] decides on its SPIFFE ID; there is no other way in.
//
// [Watch] is the Source of a running process: it follows the SPIFFE Workload API, keeps the last material when the
// API is away, and warns in good time before the SVID expires. What has expired is refused by peers; nothing here
// stretches it. [Bundle] is a trust domain's keys as a document.
//
// It never merges bundles, never falls back to host names, and never accepts a peer that it could not verify.
//
// Sub-packages: spire keeps a SPIRE server federated, authority is the embedded stand-in for SPIRE, continuity
// proves where a bundle comes from, trusttest mints identities for tests.
package trust
