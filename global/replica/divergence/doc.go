// Package divergence finds a replica whose state is not what the others have at the same index.
//
// Equal logs give equal states unless there is a bug or a damaged memory, and nothing in raft would show it. [Sum] makes a
// number of a state, from the number of the one before and their difference, so that it costs what changed. A [Jury]
// keeps the newest sums of this replica and what the others said of theirs:
//
//	every 1 000 indexes: snapshot -> Sum -> Jury.Own; every second, from each other replica: Jury.Heard
//
// It accuses nobody on one word: a replica is wrong when most of all replicas agree on another sum at the same index. It
// starts no goroutine, and decides nothing about what becomes of the one that is wrong.
package divergence
