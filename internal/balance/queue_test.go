package balance

import "testing"

func TestQueueWakesInOrderAndPassesOn(t *testing.T) {
	var q Queue
	q.Wake() // nobody waits
	first, second, third := q.Join(), q.Join(), q.Join()
	woken := func(w *Waiter) bool {
		select {
		case <-w.C:
			return true
		default:
			return false
		}
	}
	q.Wake()
	q.Wake()
	if !woken(first) || woken(first) || woken(second) {
		t.Error("want the first alone, once")
	}
	second.Leave()
	if !woken(first) {
		t.Error("who leaves wakes the first")
	}
	first.Leave()
	if !woken(third) {
		t.Error("want the third: the second has left")
	}
	third.Leave()
	if q.length.Load() != 0 || q.first != nil || q.last != nil {
		t.Error("the queue is not empty")
	}
}
