package sim

import (
	"os"
	"runtime"
	"testing"
)

// One thread: a seed plays the same way more often, and the race detector lives. In Go 1.26 two threads may run timers of
// one bubble at the same time, in one context of the detector, which then reads past a stack of its own (SIGSEGV in
// StackDepot). What races is found all the same, for it goes by what happens before what.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}
