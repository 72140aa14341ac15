// Package continuity proves that a trust domain's new bundle comes from whoever owned the old one.
//
// Bundles travel through the controllers, which must not be able to mint trust. So each is signed, in its own
// cluster, with the key of the agent's SVID, spiffe://<trust domain>/periplus/agent; and it is accepted, in each
// other cluster, only if that SVID verifies against the bundle of that domain that is held there already.
//
// It guarantees, against anybody without a key of the domain: no other roots, no rollback to older ones, no two
// bundles under one sequence number, no emptied bundle. It does not protect the first introduction: a domain
// that is not held yet is taken on its word, as long as it is consistent in itself (trust on first use);
// operators compare it out of band where that is too little. And it cannot help a cluster that was cut off for
// longer than the overlap of two roots: it refuses, and a person must introduce the domain anew.
//
// A signature is valid as long as the SVID that made it, so the owner signs again whenever its SVID is renewed
// and whenever its bundle changes.
//
// Pure but for reading the certificate's key in [Sign]; the time is an argument.
package continuity
