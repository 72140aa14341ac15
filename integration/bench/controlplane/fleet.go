package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// fleet is all proxies of one run.
type fleet struct {
	proxies  []*proxy
	receipts chan receipt
	stop     context.CancelFunc
	done     sync.WaitGroup
	failed   chan error
}

func newFleet(o options) *fleet {
	f := &fleet{receipts: make(chan receipt, o.proxies*(o.lone+o.changes)), failed: make(chan error, o.proxies)}
	shared := &names{index: make(map[string]int)}
	for i := range o.proxies {
		f.proxies = append(f.proxies, &proxy{
			number: i, services: o.services, receipts: f.receipts,
			names: shared, have: make(map[xds.Type][]xds.Version), count: make(map[xds.Type]int),
		})
	}
	return f
}

func (f *fleet) connect(address string, dial dialer) {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	for _, p := range f.proxies {
		p.accepted, p.warm = make(chan struct{}), make(chan struct{})
		f.done.Go(func() {
			if err := p.run(ctx, address, dial); err != nil {
				f.failed <- err
			}
		})
	}
}

func (f *fleet) disconnect() {
	if f.stop != nil {
		f.stop()
	}
	f.done.Wait()
}

func (f *fleet) warm(limit time.Duration) error {
	timeout := time.After(limit)
	for _, p := range f.proxies {
		select {
		case <-p.warm:
		case err := <-f.failed:
			return err
		case <-timeout:
			return fmt.Errorf("proxy %d is not warm after %v", p.number, limit)
		}
	}
	return nil
}

func (f *fleet) total(of func(*proxy) int) int {
	n := 0
	for _, p := range f.proxies {
		n += of(p)
	}
	return n
}

// taken are the delays of the receipts that have come, each once.
func (f *fleet) taken(made map[int]time.Time) []time.Duration {
	var delays []time.Duration
	seen := make(map[[2]int]bool)
	for len(f.receipts) > 0 {
		r := <-f.receipts
		if at, ok := made[r.change]; ok && !seen[[2]int{r.proxy, r.change}] {
			seen[[2]int{r.proxy, r.change}] = true
			delays = append(delays, r.at.Sub(at))
		}
	}
	return delays
}

// all waits until every proxy has seen the changes, and returns the delays in order.
func (f *fleet) all(made map[int]time.Time, count int) ([]time.Duration, error) {
	var delays []time.Duration
	for range 100 {
		if delays = append(delays, f.taken(made)...); len(delays) == count*len(f.proxies) {
			slices.Sort(delays)
			return delays, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("%d of %d receipts after 5 s", len(delays), count*len(f.proxies))
}
