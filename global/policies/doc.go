// Package policies is the global policy API: apply, get, delete and history of policies, over the ordered state.
//
// Every change is a revision in raft with author, digest and source, in a hash chain, written in the same command
// as the policy itself: both happen or neither. A command carries what it was computed from as guards, so two
// operators at two replicas cannot overwrite each other unseen; the loser computes anew. Bad input changes nothing.
package policies
