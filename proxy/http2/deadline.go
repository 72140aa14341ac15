package http2

import (
	"context"
	"sync"
	"time"
)

// deadline cancels an attempt that takes too long, or in which nothing moves in either direction.
type deadline struct {
	mu     sync.Mutex
	cancel context.CancelCauseFunc // guarded by mu; nil between attempts
	whole  *time.Timer             // guarded by mu
	quiet  *time.Timer             // guarded by mu
}

func (d *deadline) begin(cancel context.CancelCauseFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancel = cancel
}

// until replaces the deadline of the whole; zero: none.
func (d *deadline) until(t time.Time, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole != nil {
		d.whole.Stop()
		d.whole = nil
	}
	if cancel := d.cancel; !t.IsZero() {
		d.whole = time.AfterFunc(time.Until(t), func() { cancel(why) })
	}
}

// idle begins a new idle period; 0: none.
func (d *deadline) idle(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch cancel := d.cancel; {
	case limit == 0 || cancel == nil:
	case d.quiet == nil:
		d.quiet = time.AfterFunc(limit, func() { cancel(errIdle) })
	default:
		d.quiet.Reset(limit)
	}
}

func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, timer := range []*time.Timer{d.whole, d.quiet} {
		if timer != nil {
			timer.Stop()
		}
	}
	d.cancel, d.whole, d.quiet = nil, nil, nil
}
