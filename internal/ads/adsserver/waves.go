package adsserver

import (
	"sync"
	"time"

	"github.com/periplus-mesh/periplus/internal/watch"
)

// waves gives all streams the same states at the same times. That bounds the pushes of a storm of changes, and what is
// built and compared for one stream serves them all. While there are no streams nothing is followed.
type waves[S any] struct {
	source State[S]
	// pushes is how many a second all streams together may cause.
	pushes int
	work   *sync.WaitGroup
	newest watch.Value[wave[S]]

	mu      sync.Mutex // guards below, and orders writers of newest
	streams int
	stop    chan struct{} // ends the goroutine that follows; nil: there is none
}

// wave is a state, and when it was noticed that the one before is superseded.
type wave[S any] struct {
	state   S
	noticed time.Time
}

// join adds a stream, which must leave.
func (w *waves[S]) join() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams++
	if w.stop != nil {
		return
	}
	state, changed := w.source.Latest()
	w.newest.Set(wave[S]{state: state})
	stop := make(chan struct{})
	w.stop = stop
	w.work.Go(func() { w.follow(changed, stop) })
}

func (w *waves[S]) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.streams--; w.streams == 0 {
		close(w.stop)
		w.stop = nil
	}
}

// follow makes a wave of the newest state once there is one and the streams were left alone for long enough.
func (w *waves[S]) follow(changed <-chan struct{}, stop chan struct{}) {
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	for {
		select {
		case <-changed:
		case <-stop:
			return
		}
		noticed := time.Now()
		select {
		case <-quiet.C:
		case <-stop:
			return
		}
		next, interval := w.advance(noticed, stop)
		changed = next
		quiet.Reset(interval)
	}
}

// advance returns what closes when there is a newer state, and for how long the streams are to be left alone.
func (w *waves[S]) advance(noticed time.Time, stop chan struct{}) (changed <-chan struct{}, interval time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state, changed := w.source.Latest()
	if w.stop == stop { // another may follow by now
		w.newest.Set(wave[S]{state, noticed})
	}
	return changed, time.Duration(w.streams) * time.Second / time.Duration(w.pushes)
}
