// Package sim runs the whole mesh in one process, in virtual time: three controllers, a cluster agent per cluster,
// and xDS clients that stand for sidecars, with the code paths of the real programs. Only the network (package
// memnet) and the clock (package testing/synctest) are simulated, so that a test can cut, delay and kill what it
// likes, and minutes pass in moments.
//
// Tests are scripts of named steps. After every script, and after every random schedule of faults of
// TestNemesis, which also changes policies, the invariants hold:
//
//	I2 replicas are equal at equal revision
//	I3 what a client has is what a translation from scratch of the final state gives
//	I4 nothing of a cluster is outside its networks and namespaces, or there without its registration
//	I5 on one stream, nothing goes back to an older version
//	I6 no cluster vanishes from an assignment unless it was drained or removed
//	I9 no goroutine is left behind
//
// A schedule is chosen by its seed; the scheduling of goroutines is not, so a failure may need a few replays:
//
//	go test -race ./integration/sim -run 'TestNemesis' -seed 7 -seeds 1 -count 20
package sim
