package watch

import (
	"sync"
	"testing"
)

func TestGetIsSupersededBySet(t *testing.T) {
	v := New(1)
	got, next := v.Get()
	if got != 1 {
		t.Fatalf("got %d, want 1", got)
	}
	select {
	case <-next:
		t.Fatal("superseded before Set")
	default:
	}
	v.Set(2)
	v.Set(3)
	<-next
	if got := v.Latest(); got != 3 {
		t.Fatalf("got %d, want the latest, 3", got)
	}
}

// A reader that keeps reading ends with the last value, however many it skipped.
func TestReadersReachTheLastValue(t *testing.T) {
	const last = 10_000
	var v Value[int]
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			seen := -1
			for seen != last {
				got, next := v.Get()
				if got < seen {
					t.Errorf("went back from %d to %d", seen, got)
					return
				}
				if seen = got; seen != last {
					<-next
				}
			}
		})
	}
	for i := 1; i <= last; i++ {
		v.Set(i)
	}
	readers.Wait()
}

// 2-core cloud machine: about 20 ns.
func BenchmarkSet(b *testing.B) {
	var v Value[int]
	for i := range b.N {
		v.Set(i)
	}
}
