// Package memnet is a network in memory, for tests: buffered connections with deadlines, half-close, delay,
// partitions and dead hosts. The zero [Network] is ready to use.
//
// It behaves as TCP does where tests can see it: a write is buffered until the peer reads, a cut network holds data
// back until it heals, a dead host resets. It has no goroutines and waits only on channels and timers, so that it
// works in a testing/synctest bubble. It is not fast and loses nothing.
package memnet
