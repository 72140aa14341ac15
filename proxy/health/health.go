package health

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
)

// Config of Run. All fields but Log are required.
type Config struct {
	// Clusters is the latest configuration.
	Clusters *watch.Value[*config.Config]
	// Dial connects to address as the cluster does, TLS included.
	Dial func(ctx context.Context, cluster, address string) (net.Conn, error)
	// Report is told of each change of an endpoint, named as config names it, and once at its start. It must not
	// block.
	Report func(cluster string, endpoint netip.AddrPort, failing bool)
	Log    *slog.Logger // nil: discards
}

func (c *Config) validate() error {
	if c.Clusters == nil || c.Dial == nil || c.Report == nil {
		return errors.New("health: config needs clusters, dial and report")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// target is one endpoint.
type target struct {
	cluster  string
	check    int // index in the cluster's settings
	endpoint netip.AddrPort
	port     uint16 // of the check
}

// checker runs for one target under one version of its cluster's settings.
type checker struct {
	check *config.HealthCheck
	stop  context.CancelFunc
	done  chan struct{}
	state state // the running checker's, until done is closed
}

// Run checks until ctx ends, and returns nil once all checkers have stopped.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	running := map[target]*checker{}
	for {
		latest, next := c.Clusters.Get()
		c.reconcile(ctx, running, targets(latest))
		select {
		case <-next:
		case <-ctx.Done():
			c.reconcile(ctx, running, nil)
			return nil
		}
	}
}

// reconcile starts and stops checkers; one whose settings changed hands its state on.
func (c *Config) reconcile(ctx context.Context, running map[target]*checker, wanted map[target]*config.HealthCheck) {
	var stopped []target
	for t, old := range running {
		if wanted[t] != old.check {
			old.stop()
			stopped = append(stopped, t)
		}
	}
	states := map[target]state{}
	for _, t := range stopped {
		<-running[t].done
		states[t] = running[t].state
		delete(running, t)
		if wanted[t] == nil {
			c.Report(t.cluster, t.endpoint, false) // nobody checks it any more
		}
	}
	for t, check := range wanted {
		if running[t] != nil {
			continue
		}
		s, known := states[t]
		if !known {
			s = state{failing: true, first: true}
		}
		each, stop := context.WithCancel(ctx)
		started := &checker{check: check, stop: stop, done: make(chan struct{}), state: s}
		running[t] = started
		go func() { // ends with each; reconcile waits for it
			defer close(started.done)
			c.watch(each, t, started)
		}()
	}
}

func targets(c *config.Config) map[target]*config.HealthCheck {
	out := map[target]*config.HealthCheck{}
	if c == nil {
		return out
	}
	for _, cluster := range c.Clusters {
		if cluster.Endpoints == nil {
			continue
		}
		for i, check := range cluster.Settings.HealthChecks {
			for j := range cluster.Endpoints.Localities {
				addTargets(out, target{cluster: cluster.Name, check: i}, check, cluster.Endpoints.Localities[j].Endpoints)
			}
		}
	}
	return out
}

func addTargets(out map[target]*config.HealthCheck, t target, check *config.HealthCheck, endpoints []config.Endpoint) {
	for i := range endpoints {
		e := &endpoints[i]
		if e.NoChecks || !e.Address.IsValid() {
			continue
		}
		if t.endpoint, t.port = e.Address, e.HealthPort; t.port == 0 {
			t.port = e.Address.Port()
		}
		out[t] = check
	}
}

// state counts passes and failures in a row.
type state struct {
	failing       bool
	first         bool // no check has ended yet
	passes, fails uint32
}

// next is the pure part: it returns whether failing changed.
func (s *state) next(h *config.HealthCheck, err error) bool {
	before := s.failing
	if err == nil {
		s.passes, s.fails = s.passes+1, 0
		s.failing = s.failing && !s.first && s.passes < h.HealthyThreshold
	} else {
		s.passes, s.fails = 0, s.fails+1
		s.failing = s.failing || s.first || s.fails >= h.UnhealthyThreshold || errors.Is(err, errStatus)
	}
	s.first = false
	return s.failing != before
}

// interval until the next check.
func (s *state) interval(h *config.HealthCheck, changed bool) time.Duration {
	every := h.Interval
	switch {
	case changed && s.failing && h.UnhealthyEdge > 0:
		every = h.UnhealthyEdge
	case changed && !s.failing && h.HealthyEdge > 0:
		every = h.HealthyEdge
	case s.failing && h.UnhealthyInterval > 0:
		every = h.UnhealthyInterval
	}
	return every
}

func (c *Config) watch(ctx context.Context, t target, running *checker) {
	h, s := running.check, &running.state
	c.Report(t.cluster, t.endpoint, s.failing)
	wait := jitter(max(h.InitialJitter, time.Millisecond))
	for {
		if !sleep(ctx, wait) {
			return
		}
		err := c.ask(ctx, t, h)
		if ctx.Err() != nil {
			return
		}
		changed := s.next(h, err)
		if changed {
			c.Log.Info("endpoint's health changed", "cluster", t.cluster, "endpoint", t.endpoint, "failing", s.failing, "err", err)
		}
		c.Report(t.cluster, t.endpoint, s.failing)
		wait = s.interval(h, changed) + jitter(h.Jitter)
	}
}

func (c *Config) ask(ctx context.Context, t target, h *config.HealthCheck) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	address := net.JoinHostPort(t.endpoint.Addr().String(), strconv.Itoa(int(t.port)))
	conn, err := c.Dial(ctx, t.cluster, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	// A checker that is stopped does not wait for an endpoint that is silent: a new configuration would wait with it.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	switch {
	case h.HTTP != nil:
		return askHTTP(ctx, conn, h.HTTP, t.cluster)
	case h.GRPC:
		return askGRPC(ctx, conn, h.GRPCService)
	}
	return askTCP(conn, h)
}

func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
