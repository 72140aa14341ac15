// Package disk is what a replica keeps on disk: the raft log with votes ([Log]), and snapshots ([Snapshots]) of the
// state in a format of their own ([WriteSnapshot], [ReadSnapshot]).
//
// The log is a row of files of one size, the segments, made of blocks with a checksum each. What it is told is one frame
// of blocks behind the last, and one wait for the disk:
//
//	StoreLogs, DeleteRange -> frame -> blocks -> write of the newest segment -> disk -> state in memory -> readers
//
// Terms and votes are in a file of two pages beside it, which never needs more of the disk: elections go on when that is full.
//
// A segment has its size, and its place on the disk, from the start: a full disk shows when one is made, not in the middle of
// it. A small write takes zeros along for those that follow, which then change nothing but data. A segment begins with all that
// was known before it but the entries: those without an entry that is needed are deleted. A log that is opened is read by what
// also applies what was just written.
//
// Guarantees: what is read is what was written, or an error; of damage, [ErrCorrupt]. A write that returned is on disk. One
// that power loss has interrupted is there whole or not at all; of one that failed nobody knows, so nothing more is written
// until the log is opened again. All of the log and the newest snapshot are read once when they are opened: damage shows at
// the start, not in the middle of an election. [Log.Writing] tells how long a write has hung.
//
// Every block is checked, also those that were not written yet, and a file that is cut short, lost or misplaced is seen.
// What cannot be told from power loss is a disk that has lost blocks of the very last write although it had said that they
// are there; nor from a new replica, one whose folder is gone. Torn is what lacks whole blocks of 512 bytes: a disk that
// leaves half of one behind damages the log. On a file system that never writes in the same place (btrfs, zfs) a full disk
// can show in the middle of a segment: that is a write that failed.
//
// It never repairs, never passes over damage to something older, and never decides what a damaged or hung replica does:
// that is the replica's. It knows the format of commands' results and objects, not what they mean. It has no loop and
// no goroutine of its own.
package disk
