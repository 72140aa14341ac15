package balance

import (
	"sync"
	"sync/atomic"
)

// Queue is who waits for a place that is not free, first come first served. The zero value is ready.
type Queue struct {
	length atomic.Int64 // of waiting: Wake costs one load when nobody waits
	mu     sync.Mutex
	first  *Waiter // guarded by mu, as are last and the Waiters' links
	last   *Waiter
}

// Waiter is a place in a Queue.
type Waiter struct {
	// C receives when the Waiter may try again; it keeps its place until it leaves.
	C            chan struct{}
	queue        *Queue
	before, next *Waiter
}

// Join takes the last place. Leave must follow. The caller tries once more before it waits: what was freed before
// Join returned has woken somebody else.
func (q *Queue) Join() *Waiter {
	w := &Waiter{C: make(chan struct{}, 1), queue: q}
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.before = q.last; q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.length.Add(1)
	return w
}

// Leave gives the place up, and lets the next try: this one may have been woken and not have used it.
func (w *Waiter) Leave() {
	q := w.queue
	q.mu.Lock()
	if w.before == nil {
		q.first = w.next
	} else {
		w.before.next = w.next
	}
	if w.next == nil {
		q.last = w.before
	} else {
		w.next.before = w.before
	}
	q.length.Add(-1)
	q.mu.Unlock()
	q.Wake()
}

// Wake lets the first in the queue try again.
func (q *Queue) Wake() {
	if q.length.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first == nil {
		return
	}
	select {
	case q.first.C <- struct{}{}:
	default: // it has been told and has not looked yet
	}
}
