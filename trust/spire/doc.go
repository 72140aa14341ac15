// Package spire keeps a SPIRE server federated: its foreign bundles, its federation relationships and which
// entries may use them. The embedded authority speaks the same API, so this is the only code path.
//
// It guarantees: a bundle is only ever replaced by one with a higher sequence number; one that somebody else
// set is only ever extended by one that shares a root with it; only what it set itself is deleted, and only when
// the caller says that the desired set is complete; an entry's other federated domains stay, and an entry that somebody
// sets back each time is left alone for a while. Errors say which server, and what to do.
//
// It never decides whom to trust: what is desired has passed package continuity. It never touches entries of
// nodes and of other servers, nor any field of an entry but federates_with.
//
// The loop is the caller's: on each change of the desired set, and now and then, call [Client.Reconcile].
package spire
