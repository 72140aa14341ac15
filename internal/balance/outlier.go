package balance

import (
	"sync/atomic"
	"time"
)

// Result is how a request on a host ended, for outlier detection.
type Result uint8

// The results. LocalFailure is one that the host did not answer: no connection, reset, timeout.
const (
	Success      Result = iota
	ServerError         // a 5xx that is not a GatewayError
	GatewayError        // 502, 503, 504
	LocalFailure
	// LocalSuccess is a connection made; it counts only under OutlierConfig.SplitLocal.
	LocalSuccess
)

// ResultOf classifies an HTTP status.
func ResultOf(status int) Result {
	switch {
	case status >= 502 && status <= 504:
		return GatewayError
	case status >= 500 && status <= 599:
		return ServerError
	}
	return Success
}

// outlierState is outlier detection's knowledge of one address.
type outlierState struct {
	server, gateway, local atomic.Uint32 // consecutive failures
	ejected                atomic.Bool

	// guarded by shared.mu
	since   time.Time // of the ejection
	backoff int       // multiplier of the base ejection time
}

// Report counts a result. It is cheap unless it ejects. Time is any clock with a monotonic reading.
func (s *Set) Report(h *Host, r Result, now time.Time) {
	c := s.spec.Outlier
	if c == nil {
		return
	}
	if h.outlier.count(c, r) {
		s.eject(h, now)
	}
}

// count is true if a threshold was reached; that counter then starts again (envoy outlier_detection_impl.cc).
func (o *outlierState) count(c *OutlierConfig, r Result) bool {
	switch {
	case r == LocalFailure && c.SplitLocal:
		return reached(&o.local, c.ConsecutiveLocal)
	case r == LocalSuccess:
		if c.SplitLocal {
			reset(&o.local)
		}
		return false
	case r == Success:
		reset(&o.server)
		reset(&o.gateway)
		return false
	case r == ServerError:
		reset(&o.gateway)
		return reached(&o.server, c.Consecutive5xx)
	}
	byGateway := reached(&o.gateway, c.ConsecutiveGateway)
	return reached(&o.server, c.Consecutive5xx) || byGateway
}

// reset writes only if it must: most hosts are well, and their line is shared by all cores.
func reset(counter *atomic.Uint32) {
	if counter.Load() != 0 {
		counter.Store(0)
	}
}

func reached(counter *atomic.Uint32, threshold uint32) bool {
	if threshold == 0 || counter.Add(1) < threshold {
		return false
	}
	counter.Store(0)
	return true
}

// eject holds the host out, unless that were more than the percentage allows.
func (s *Set) eject(h *Host, now time.Time) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	current := s.shared.current
	if c := current.spec.Outlier; c == nil || s.shared.states[h.Address] != h.state || h.Ejected() || !current.mayEject(c) {
		return
	}
	o := &h.outlier
	o.ejected.Store(true)
	o.since = now
	if c := current.spec.Outlier; time.Duration(o.backoff)*c.BaseEjection < c.MaxEjection+c.BaseEjection {
		o.backoff++
	}
	current.rebuild()
}

func (s *Set) mayEject(c *OutlierConfig) bool {
	ejected := 0
	for _, h := range s.hosts {
		if h.Ejected() {
			ejected++
		}
	}
	if ejected == 0 && c.AlwaysEjectOne {
		return true
	}
	return uint64(ejected+1)*100 <= uint64(*c.MaxEjectionPercent)*uint64(len(s.hosts))
}

// Tick ends the ejections whose time is over and lets the multiplier of healthy hosts sink. Call it each
// Set.OutlierInterval; a Set without outlier detection frees whatever its predecessor ejected.
func (s *Set) Tick(now time.Time) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	current := s.shared.current
	changed := false
	for _, h := range current.hosts {
		changed = h.outlier.tick(current.spec.Outlier, now) || changed
	}
	if changed {
		current.rebuild()
	}
}

// tick is true if the host comes back.
func (o *outlierState) tick(c *OutlierConfig, now time.Time) bool {
	if !o.ejected.Load() {
		o.backoff = max(o.backoff-1, 0)
		return false
	}
	if c != nil && now.Sub(o.since) < min(time.Duration(o.backoff)*c.BaseEjection, c.MaxEjection) {
		return false
	}
	for _, counter := range []*atomic.Uint32{&o.server, &o.gateway, &o.local} {
		counter.Store(0)
	}
	o.ejected.Store(false)
	return true
}
