package balance

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Policy is how a host is chosen within a locality (Cluster.LbPolicy).
type Policy uint8

// The policies. The hash policies choose within the priority level, as Envoy's do.
const (
	RoundRobin Policy = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

// Health is what EDS says of an endpoint (core.v3.HealthStatus).
type Health uint8

// HEALTHY and UNKNOWN are Healthy; UNHEALTHY, DRAINING and TIMEOUT are Unhealthy.
const (
	Healthy Health = iota
	Degraded
	Unhealthy
)

// Envoy's defaults.
const (
	DefaultPanicPercent            = 50
	DefaultOverprovisioningPercent = 140
	DefaultMinRing                 = 1024
	DefaultMaxRing                 = 8 << 20
)

// ErrNoHost is returned by [Set.Pick] when no host may be used; Envoy answers 503 with flag UH.
var ErrNoHost = errors.New("no healthy upstream")

// Spec describes one version of a cluster's endpoints. NewSet does not keep its slices.
type Spec struct {
	Policy Policy
	// Levels are the priorities, 0 first.
	Levels []Level
	// LocalityWeighted: localities share a level's load by weight, and one without weight gets none
	// (locality_weighted_lb_config). Otherwise localities do not matter.
	LocalityWeighted bool
	// WeightedHealth: a host counts with its weight in priority health, locality availability and panic
	// (weighted_priority_health). Needed as soon as some hosts are gateways that stand for many endpoints.
	WeightedHealth bool
	// PanicPercent: a level with fewer available hosts uses all of them, if the levels together are short of
	// 100%. Zero: never (Istio's choice beside outlier detection). An absent field of CDS is DefaultPanicPercent.
	PanicPercent uint32
	// OverprovisioningPercent: zero is 140.
	OverprovisioningPercent uint32
	// MinRing and MaxRing bound the ring of RingHash, in entries. Zero: 1024 and 8 Mi.
	MinRing, MaxRing uint64
	// Outlier: nil is no outlier detection.
	Outlier *OutlierConfig
	Limits  *Limits // nil: DefaultLimits
	// Random yields uniform numbers and must be safe for concurrent use. Nil: math/rand/v2.
	Random func() uint64
}

// Level is one priority.
type Level struct{ Localities []Locality }

// Locality is one locality of a level.
type Locality struct {
	Region, Zone, Subzone string
	// Weight counts if Spec.LocalityWeighted; zero gets no load.
	Weight uint32
	Hosts  []HostSpec
}

// HostSpec is one endpoint.
type HostSpec struct {
	// Address is the host's identity: of two hosts with one address in a Set, the first is kept (as Envoy does).
	Address string
	// Weight: zero is 1.
	Weight uint32
	Health Health
	// Data is the caller's, handed on in Host.
	Data any
}

// OutlierConfig is Envoy's OutlierDetection. A zero duration or percentage is Envoy's default.
type OutlierConfig struct {
	// Consecutive5xx ejects after so many server errors in a row, local failures among them unless split; zero: never.
	Consecutive5xx uint32
	// ConsecutiveGateway ejects after so many of 502, 503, 504 and local failures in a row; zero: never.
	ConsecutiveGateway uint32
	// SplitLocal: local failures (no connection, reset, timeout) count only for ConsecutiveLocal.
	SplitLocal       bool
	ConsecutiveLocal uint32 // zero: never
	// Interval between two Ticks, for the caller; zero is 10 s.
	Interval time.Duration
	// BaseEjection times the number of ejections is how long one lasts, at most MaxEjection; zero: 30 s, 300 s.
	BaseEjection, MaxEjection time.Duration
	// MaxEjectionPercent of all hosts; nil is 10. One host less than the percentage allows stays: with the
	// default and fewer than ten hosts nobody is ejected, unless AlwaysEjectOne.
	MaxEjectionPercent *uint32
	AlwaysEjectOne     bool
}

func (s *Spec) setDefaults() {
	if s.OverprovisioningPercent == 0 {
		s.OverprovisioningPercent = DefaultOverprovisioningPercent
	}
	if s.MinRing == 0 {
		s.MinRing = DefaultMinRing
	}
	if s.MaxRing == 0 {
		s.MaxRing = DefaultMaxRing
	}
	s.MinRing = min(s.MinRing, s.MaxRing)
	s.PanicPercent = min(s.PanicPercent, 100)
	if s.Random == nil {
		s.Random = rand.Uint64
	}
}

func (c OutlierConfig) withDefaults() OutlierConfig {
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.BaseEjection == 0 {
		c.BaseEjection = 30 * time.Second
	}
	if c.MaxEjection == 0 {
		c.MaxEjection = 300 * time.Second
	}
	c.MaxEjection = max(c.MaxEjection, c.BaseEjection)
	if c.MaxEjectionPercent == nil {
		percent := uint32(10)
		c.MaxEjectionPercent = &percent
	}
	return c
}
