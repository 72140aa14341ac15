package balance

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Host is one endpoint of a Set. Its exported fields are read-only.
type Host struct {
	Address               string
	Region, Zone, Subzone string
	Priority              int
	Weight                uint32
	Health                Health // as EDS says
	Data                  any
	*state
}

// state is what is known of an address. It outlives the Set.
type state struct {
	active atomic.Int64
	// failing: active health checking, or the caller, says that the host does not answer.
	failing atomic.Bool
	outlier outlierState
}

// Begin counts a request (or connection) that runs on the host.
func (h *Host) Begin() { h.active.Add(1) }

// End takes back one Begin.
func (h *Host) End() { h.active.Add(-1) }

// Active is the number of requests that run on the host, on all versions of the Set.
func (h *Host) Active() int64 { return h.active.Load() }

// Ejected tells whether outlier detection holds the host out.
func (h *Host) Ejected() bool { return h.outlier.ejected.Load() }

// Failing tells what [Set.SetFailing] last said.
func (h *Host) Failing() bool { return h.failing.Load() }

// health is EDS', active and passive health together.
func (h *Host) health() Health {
	if h.Failing() || h.Ejected() {
		return Unhealthy
	}
	return h.Health
}

// Set is one version of a cluster's endpoints.
type Set struct {
	spec   Spec
	levels []level
	hosts  []*Host
	plan   atomic.Pointer[plan]
	shared *shared
}

// level and locality mirror the Spec.
type level struct{ localities []locality }

type locality struct {
	weight uint32
	hosts  []*Host
}

// shared outlives the versions of one cluster's Set.
type shared struct {
	breaker Breaker

	mu      sync.Mutex // guards what follows, and the making of plans
	current *Set
	states  map[string]*state
}

// NewSet makes the next version, which takes over what previous (nil for the first) knows of each address. From
// then on only the new Set follows changes of health. One goroutine at a time may call it for one cluster.
func NewSet(spec Spec, previous *Set) *Set {
	spec.setDefaults()
	s := &Set{spec: spec}
	if spec.Outlier != nil {
		config := spec.Outlier.withDefaults()
		s.spec.Outlier = &config
	}
	if previous == nil {
		s.shared = &shared{}
	} else {
		s.shared = previous.shared
	}
	s.shared.breaker.setLimits(spec.Limits)
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.adopt()
	s.spec.Levels = nil
	s.shared.current = s
	s.rebuild()
	return s
}

// adopt makes the hosts and keeps the states of those, and only those, that still exist.
func (s *Set) adopt() {
	old := s.shared.states
	s.shared.states = make(map[string]*state, len(old))
	for priority, l := range s.spec.Levels {
		made := level{localities: make([]locality, 0, len(l.Localities))}
		for _, spec := range l.Localities {
			made.localities = append(made.localities, s.adoptLocality(priority, spec, old))
		}
		s.levels = append(s.levels, made)
	}
}

func (s *Set) adoptLocality(priority int, spec Locality, old map[string]*state) locality {
	made := locality{weight: spec.Weight}
	for _, h := range spec.Hosts {
		if s.shared.states[h.Address] != nil {
			continue // the first host of an address wins
		}
		kept := old[h.Address]
		if kept == nil {
			kept = &state{}
		}
		s.shared.states[h.Address] = kept
		host := &Host{
			Address: h.Address, Region: spec.Region, Zone: spec.Zone, Subzone: spec.Subzone,
			Priority: priority, Weight: max(h.Weight, 1), Health: h.Health, Data: h.Data, state: kept,
		}
		made.hosts = append(made.hosts, host)
		s.hosts = append(s.hosts, host)
	}
	return made
}

// rebuild needs shared.mu.
func (s *Set) rebuild() { s.plan.Store(newPlan(s)) }

// Hosts are all hosts, by priority and locality. The caller must not write to the slice.
func (s *Set) Hosts() []*Host { return s.hosts }

// Breaker is the cluster's circuit breaker, common to all versions of the Set.
func (s *Set) Breaker() *Breaker { return &s.shared.breaker }

// OutlierInterval is the time between two Ticks; zero if there is no outlier detection.
func (s *Set) OutlierInterval() time.Duration {
	if s.spec.Outlier == nil {
		return 0
	}
	return s.spec.Outlier.Interval
}

// SetFailing takes a host out of use, or back, on the evidence of active health checks.
func (s *Set) SetFailing(h *Host, failing bool) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if h.failing.Swap(failing) != failing {
		s.shared.current.rebuild()
	}
}

// Request is what a choice depends on beside the Set. The zero Request is any request.
type Request struct {
	// Hash steers the hash policies if HasHash; otherwise they choose at random.
	Hash    uint64
	HasHash bool
	// Exclude tells the hosts to avoid, such as those that failed this request before. Nil: none.
	Exclude func(*Host) bool
	// Avoid are priorities that get no load, unless no other can take any (Envoy's previous_priorities). Empty: none.
	Avoid []int
}

// maxReselections is how often a choice is repeated before the first host that is not excluded is taken
// (host_selection_retry_max_attempts as Istio sets it).
const maxReselections = 5

// Pick chooses a host. If every usable host is excluded it returns one that is: the caller decides whether to try
// it again. The only error is [ErrNoHost]. 2-core cloud machine: see BenchmarkPick.
func (s *Set) Pick(r Request) (*Host, error) {
	p := s.plan.Load()
	if !r.HasHash || !s.hashes() {
		r.Hash = s.spec.Random()
	}
	slots := p.slots
	if len(r.Avoid) > 0 {
		slots = p.further(r.Avoid)
	}
	host := p.pick(s, slots, r.Hash)
	if host == nil {
		return nil, ErrNoHost
	}
	if r.Exclude == nil || !r.Exclude(host) {
		return host, nil
	}
	return s.reselect(p, slots, r, host), nil
}

func (s *Set) hashes() bool { return s.spec.Policy == RingHash || s.spec.Policy == Maglev }

func (s *Set) reselect(p *plan, slots []uint16, r Request, last *Host) *Host {
	for range maxReselections {
		if host := p.pick(s, slots, s.spec.Random()); host != nil && !r.Exclude(host) {
			return host
		}
	}
	for _, avoided := range []bool{false, true} {
		for i := range p.pools { // nearest priority first
			if slices.Contains(r.Avoid, p.pools[i].level) != avoided {
				continue
			}
			for _, host := range p.pools[i].hosts {
				if !r.Exclude(host) {
					return host
				}
			}
		}
	}
	return last
}
