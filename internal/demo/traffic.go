package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Visitor is a source of requests: one zone, sending through its own sidecar.
type Visitor struct {
	Region, Zone string
	Proxy        string // host:port of the sidecar's outbound listener
}

// TrafficConfig is the load that keeps the shop busy.
type TrafficConfig struct {
	Visitors []Visitor
	Service  string // who is asked, "storefront.shop"
	// PerSecond is the rate of each visitor, open loop: a slow answer delays no later request. At most 10 000; 0: 10.
	PerSecond float64
	Listener  net.Listener // serves Stats as JSON at /stats
}

// window is how far back the figures look; inFlight bounds what a dead mesh can pile up.
const (
	window   = 5 * time.Second
	inFlight = 2_000
)

// Stats are the figures of the last few seconds.
type Stats struct {
	Regions []RegionStats `json:"regions"`
	// Flows: where the requests of each region were served.
	Flows []Flow `json:"flows"`
	Total uint64 `json:"total"`
	Fails uint64 `json:"fails"`
	Last  string `json:"lastError,omitempty"`
}

// RegionStats are the figures of a region's visitors.
type RegionStats struct {
	Region  string  `json:"region"`
	Rate    float64 `json:"rate"`    // requests per second
	Success float64 `json:"success"` // 0..1
	P50     float64 `json:"p50ms"`
	P99     float64 `json:"p99ms"`
}

// Flow is the requests to one service by the region that they came from and the one that served them.
type Flow struct {
	Service string  `json:"service"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	Rate    float64 `json:"rate"`
}

type sample struct {
	at       time.Time
	region   string
	duration time.Duration
	ok       bool
	hop      *Hop
}

type recorder struct {
	mu           sync.Mutex
	samples      []sample // guarded by mu, in order of time, no older than window
	total, fails uint64   // guarded by mu
	last         string   // guarded by mu
}

const maxPerSecond = 10_000

// RunTraffic sends until ctx ends.
func RunTraffic(ctx context.Context, c TrafficConfig) error {
	if c.PerSecond == 0 {
		c.PerSecond = 10
	}
	if !(c.PerSecond > 0 && c.PerSecond <= maxPerSecond) { // NaN neither
		return fmt.Errorf("visitors: %v requests per second: want more than 0, and at most %d", c.PerSecond, maxPerSecond)
	}
	var r recorder
	group, ctx := errgroup.WithContext(ctx)
	mux := http.NewServeMux()
	mux.HandleFunc("/stats", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(r.stats(time.Now()))
	})
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	group.Go(func() error {
		if err := server.Serve(c.Listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	for _, visitor := range c.Visitors {
		group.Go(func() error { return visitor.run(ctx, c, &r) })
	}
	return group.Wait()
}

func (v Visitor) run(ctx context.Context, c TrafficConfig, r *recorder) error {
	client := NewClient(v.Proxy)
	defer client.CloseIdleConnections()
	tick := time.NewTicker(time.Duration(float64(time.Second) / c.PerSecond))
	defer tick.Stop()
	slots := make(chan struct{}, inFlight)
	var requests sync.WaitGroup
	defer requests.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
			requests.Go(func() {
				defer func() { <-slots }()
				v.visit(ctx, client, c.Service, r)
			})
		default:
			r.add(sample{at: time.Now(), region: v.Region}, errors.New("too many requests without an answer"))
		}
	}
}

func (v Visitor) visit(ctx context.Context, client *http.Client, service string, r *recorder) {
	start := time.Now()
	hop, err := Ask(ctx, client, service, "/")
	if ctx.Err() != nil {
		return
	}
	end := time.Now()
	r.add(sample{at: end, region: v.Region, duration: end.Sub(start), ok: err == nil, hop: hop}, err)
}

func (r *recorder) add(s sample, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s)
	r.expire(s.at)
	if r.total++; err != nil {
		r.fails++
		r.last = err.Error()
	}
}

func (r *recorder) expire(now time.Time) {
	first := slices.IndexFunc(r.samples, func(s sample) bool { return now.Sub(s.at) <= window })
	if first < 0 {
		first = len(r.samples)
	}
	r.samples = append(r.samples[:0], r.samples[first:]...)
}

func (r *recorder) stats(now time.Time) Stats {
	r.mu.Lock()
	r.expire(now)
	samples := slices.Clone(r.samples)
	out := Stats{Total: r.total, Fails: r.fails, Last: r.last}
	r.mu.Unlock()
	byRegion := map[string][]sample{}
	flows := map[Flow]int{}
	for _, s := range samples {
		byRegion[s.region] = append(byRegion[s.region], s)
		from := s.region
		for hop := s.hop; hop != nil; hop = hop.Upstream {
			flows[Flow{Service: hop.Service, From: from, To: hop.Region}]++
			from = hop.Region
		}
	}
	for region, samples := range byRegion {
		out.Regions = append(out.Regions, summarise(region, samples))
	}
	slices.SortFunc(out.Regions, func(a, b RegionStats) int { return cmp.Compare(a.Region, b.Region) })
	for flow, n := range flows {
		flow.Rate = float64(n) / window.Seconds()
		out.Flows = append(out.Flows, flow)
	}
	slices.SortFunc(out.Flows, func(a, b Flow) int { return cmp.Compare(a.Service+a.From+a.To, b.Service+b.From+b.To) })
	return out
}

func summarise(region string, samples []sample) RegionStats {
	out := RegionStats{Region: region, Rate: float64(len(samples)) / window.Seconds()}
	var durations []time.Duration
	for _, s := range samples {
		if s.ok {
			out.Success++
			durations = append(durations, s.duration)
		}
	}
	out.Success /= float64(len(samples))
	slices.Sort(durations)
	if n := len(durations); n > 0 {
		out.P50 = durations[n/2].Seconds() * 1000
		out.P99 = durations[n*99/100].Seconds() * 1000
	}
	return out
}
