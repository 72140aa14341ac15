// Package disk is what a replica keeps on disk: the raft log with votes ([Log]), and snapshots ([Snapshots]) of the
// state in a format of their own ([WriteSnapshot], [ReadSnapshot]).
//
// Guarantees: what is read is what was written, or an error; of damage, [ErrCorrupt]. Log entries, values, snapshots
// and their metadata carry CRC32C; the log's extent is stored beside it, so that one which was cut short is seen; the
// structure of the log's file is checked before bbolt opens it to write, which would panic on damage or forget the last
// write. All of the log and the newest snapshot are read once when they are opened: damage shows at the start, not in
// the middle of an election. A write that returned is on disk. [Log.Writing] tells how long one has hung.
//
// It never repairs, never passes over damage to something older, and never decides what a damaged or hung replica does:
// that is the replica's. It knows the format of commands' results and objects, not what they mean. It has no loop and
// no goroutine of its own.
package disk
