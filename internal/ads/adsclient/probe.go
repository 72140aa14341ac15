package adsclient

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// prober looks for a better target in the background.
type prober struct {
	found  chan *link // at most one link, open and unused
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// probe dials the targets before index every ProbeInterval, until one answers. The best target has none before it.
func (c *client) probe(ctx context.Context, index int) *prober {
	probing, cancel := context.WithCancel(ctx)
	p := &prober{found: make(chan *link), cancel: cancel}
	if index > 0 {
		p.work.Go(func() { c.search(ctx, probing, index, p.found) })
	}
	return p
}

// search dials with ctx, which a link that is found outlives the search with.
func (c *client) search(ctx, probing context.Context, index int, found chan<- *link) {
	for {
		timer := time.NewTimer(c.config.ProbeInterval/2 + rand.N(c.config.ProbeInterval))
		select {
		case <-probing.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		for i := range index {
			l, err := c.dial(ctx, probing, i)
			if err != nil {
				continue
			}
			select {
			case found <- l:
			case <-probing.Done():
				l.close()
			}
			return
		}
	}
}

// stop ends the search and waits for it.
func (p *prober) stop() {
	p.cancel()
	p.work.Wait()
}
