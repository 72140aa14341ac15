// Package replica orders the mesh's state with raft and keeps it in a [mesh.Store]. With its package disk
// it is the only importer of hashicorp/raft.
//
// A [periplusv1.Command] is one log entry. Its parts have guards: what a key must hold, or that a report is newer than
// what is known. Every replica applies the same entries in the same order by the same pure function, so equal
// indexes mean equal states:
//
//	Propose -> leader's log -> quorum -> FSM.ApplyBatch -> Store.Commit(index, delta) -> everybody who watches the store
//
// Entries that raft hands over together become one commit, so not every index is seen as a version.
//
// Guarantees: an acknowledged proposal is on the disks of a quorum. An error of [Replica.Propose] says what it left
// behind: [ErrNoLeader] and [ErrRefused] mean not done, [ErrUnknown] means perhaps done. The store is marked ready
// only once the replica has caught up with a leader. What is on disk is verified (package disk): a replica that finds
// damage refuses to start ([ErrCorrupt]) and never starts with another state than it had.
//
// A damaged replica is replaced, never repaired: delete its data folder and start it again with --join. One that is lost
// or not trusted any more is removed ([Replica.Leave], periplus global leave ID): that is part of the state, raft's
// transport refuses its certificates, and its name is not used again. So a replica that was away refuses nobody who
// belongs to the mesh: it may know of fewer removals than the others, never of one that was undone.
//
// Every thousand entries the replicas compare what their states sum up to (package divergence). One that most others
// disagree with stops ([ErrDiverged]).
//
// A leader whose disk hangs stops talking to its followers after [Config.HandOverAfter], so that they elect another,
// and exits after [Config.ExitAfter]. It cannot hand leadership over in the ordinary way: raft's own loop is stuck
// in the write.
package replica
