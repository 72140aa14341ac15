package balance

import "sync/atomic"

// Limits are a cluster's circuit breaker thresholds (Envoy CircuitBreakers); zero allows none. A budget replaces
// MaxRetries.
type Limits struct {
	MaxConnections, MaxPending, MaxRequests, MaxRetries uint32
	Retry                                               *RetryBudget
}

// RetryBudget bounds retries to a share of the requests that run. Zero is Envoy's default: 20% and 3.
type RetryBudget struct {
	Percent        float64
	MinConcurrency uint32
}

// Allows tells whether one more retry may start beside active requests and retries that run already.
func (b RetryBudget) Allows(active, retries int64) bool {
	if b.Percent == 0 {
		b.Percent = 20
	}
	if b.MinConcurrency == 0 {
		b.MinConcurrency = 3
	}
	return retries < max(int64(b.Percent*float64(active)/100), int64(b.MinConcurrency))
}

// Breaker counts what a cluster has in use. Safe for concurrent use, lock-free.
type Breaker struct {
	Connections, Pending, Requests Gauge
	// Waiting are the requests that are pending because there is no connection for them: whoever frees one wakes it.
	Waiting Queue
	retries Gauge
	budget  atomic.Pointer[RetryBudget]
}

// AcquireRetry is false if a retry must not start; else ReleaseRetry must follow.
func (b *Breaker) AcquireRetry() bool {
	budget := b.budget.Load()
	if budget == nil {
		return b.retries.Acquire()
	}
	if !budget.Allows(b.Requests.Used()+b.Pending.Used(), b.retries.used.Add(1)-1) {
		b.retries.Release()
		return false
	}
	return true
}

// ReleaseRetry ends a retry.
func (b *Breaker) ReleaseRetry() { b.retries.Release() }

// DefaultLimits are Envoy's.
func DefaultLimits() Limits {
	return Limits{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}
}

func (b *Breaker) setLimits(l *Limits) {
	if l == nil {
		standard := DefaultLimits()
		l = &standard
	}
	b.Connections.limit.Store(int64(l.MaxConnections))
	b.Pending.limit.Store(int64(l.MaxPending))
	b.Requests.limit.Store(int64(l.MaxRequests))
	b.retries.limit.Store(int64(l.MaxRetries))
	b.budget.Store(l.Retry)
}

// Gauge is a number in use and its limit.
type Gauge struct{ used, limit atomic.Int64 }

// Acquire is false at the limit; else Release must follow.
func (g *Gauge) Acquire() bool {
	if g.used.Add(1) > g.limit.Load() {
		g.used.Add(-1)
		return false
	}
	return true
}

// Release takes back one Acquire.
func (g *Gauge) Release() { g.used.Add(-1) }

// Used is how many are in use.
func (g *Gauge) Used() int64 { return g.used.Load() }
