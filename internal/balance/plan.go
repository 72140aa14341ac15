package balance

import "sync/atomic"

// plan is everything a choice reads: made once per change of health, immutable but for the round-robin counters.
type plan struct {
	loads loads
	// slots maps each percent of the load to a pool.
	slots []uint16
	pools []pool
}

// pool is the hosts of one level that are in the same state of health.
type pool struct {
	hosts []*Host
	// A hash policy has a table, every other groups: localities if they are weighted, else one.
	table  table
	groups []group
	by     sampler
	turn   *atomic.Uint64
}

// group is the hosts of one locality.
type group struct {
	hosts []*Host
	by    sampler
	turn  *atomic.Uint64
}

// table finds the host of a hash.
type table interface{ host(hash uint64) *Host }

func newPlan(s *Set) *plan {
	p := &plan{}
	tallies := make([]tally, len(s.levels))
	for i, l := range s.levels {
		for _, loc := range l.localities {
			tallies[i].add(loc.hosts, s.spec.WeightedHealth)
		}
	}
	p.loads = newLoads(tallies, s.spec.OverprovisioningPercent, s.spec.PanicPercent)
	for i, l := range s.levels {
		if p.loads.panic[i] {
			p.append(s, p.loads.healthy[i]+p.loads.degraded[i], l, anyHealth, true)
			continue
		}
		p.append(s, p.loads.healthy[i], l, isHealthy, false)
	}
	for i, l := range s.levels {
		if !p.loads.panic[i] {
			p.append(s, p.loads.degraded[i], l, isDegraded, false)
		}
	}
	return p
}

func (t *tally) add(hosts []*Host, weighted bool) {
	for _, h := range hosts {
		n := uint64(1)
		if weighted {
			n = uint64(h.Weight)
		}
		t.total += n
		switch h.health() {
		case Healthy:
			t.healthy += n
		case Degraded:
			t.degraded += n
		}
	}
}

func anyHealth(*Host) bool    { return true }
func isHealthy(h *Host) bool  { return h.health() == Healthy }
func isDegraded(h *Host) bool { return h.health() == Degraded }

// append adds the pool of those hosts of a level, with a share of the load, which may be none: a retry may use it.
func (p *plan) append(s *Set, percent uint32, l level, use func(*Host) bool, panics bool) {
	made, ok := newPool(s, l, use, panics)
	if !ok {
		return
	}
	for range percent {
		p.slots = append(p.slots, uint16(len(p.pools)))
	}
	p.pools = append(p.pools, made)
}

// newPool is false if no host of the level is to be used. A pool in panic disregards localities, as Envoy does.
func newPool(s *Set, l level, use func(*Host) bool, panics bool) (pool, bool) {
	var parts []part
	made := pool{turn: new(atomic.Uint64)}
	for _, loc := range l.localities {
		part := part{weight: uint64(loc.weight)}
		var t tally
		t.add(loc.hosts, s.spec.WeightedHealth)
		for _, h := range loc.hosts {
			if use(h) {
				part.hosts = append(part.hosts, h)
			}
		}
		part.effective = part.weight * uint64(availability(t.healthy+t.degraded, t.total, s.spec.OverprovisioningPercent))
		parts = append(parts, part)
		made.hosts = append(made.hosts, part.hosts...)
	}
	if len(made.hosts) == 0 {
		return pool{}, false
	}
	if panics {
		parts = nil
	}
	parts = weighted(s, parts, made.hosts)
	if s.hashes() {
		made.table = newTable(s.spec, parts)
		return made, true
	}
	made.turn.Store(s.spec.Random())
	weights := make([]uint64, len(parts))
	for i, part := range parts {
		weights[i] = part.effective
		made.groups = append(made.groups, newGroup(s, part.hosts))
	}
	made.by = newSampler(weights)
	return made, true
}

// part is the hosts of one locality that a pool uses.
type part struct {
	hosts             []*Host
	weight, effective uint64
}

// weighted returns the localities that get load, or one part of all hosts where localities do not count.
func weighted(s *Set, parts []part, all []*Host) []part {
	kept := parts[:0:0]
	for _, part := range parts {
		if len(part.hosts) > 0 && part.effective > 0 {
			kept = append(kept, part)
		}
	}
	if !s.spec.LocalityWeighted || len(kept) == 0 {
		return []part{{hosts: all, weight: 1, effective: 1}}
	}
	return kept
}

func newGroup(s *Set, hosts []*Host) group {
	weights := make([]uint64, len(hosts))
	for i, h := range hosts {
		weights[i] = uint64(h.Weight)
	}
	g := group{hosts: hosts, by: newSampler(weights), turn: new(atomic.Uint64)}
	g.turn.Store(s.spec.Random() >> 1)
	return g
}

// pick is nil if nothing can be used. The hash chooses the level too, so that equal hashes meet in one host.
func (p *plan) pick(s *Set, hash uint64) *Host {
	if len(p.slots) == 0 {
		return nil
	}
	pool := &p.pools[p.slots[hash%uint64(len(p.slots))]]
	if pool.table != nil {
		return pool.table.host(hash)
	}
	g := &pool.groups[0]
	if len(pool.groups) > 1 {
		g = &pool.groups[pool.by.at(pool.turn.Add(golden))]
	}
	return g.pick(s)
}

func (g *group) pick(s *Set) *Host {
	switch {
	case len(g.hosts) == 1:
		return g.hosts[0]
	case s.spec.Policy == RoundRobin:
		return g.next()
	case s.spec.Policy == LeastRequest:
		return g.leastRequest(s.spec.Random)
	}
	return g.hosts[g.by.at(s.spec.Random())]
}

// next takes turns: hosts of equal weight one after the other, others evenly spread by weight.
func (g *group) next() *Host {
	turn := g.turn.Add(1)
	if g.by.cumulative == nil {
		return g.hosts[turn%uint64(len(g.hosts))]
	}
	return g.hosts[g.by.at(turn*golden)]
}

// leastRequest is the better of two hosts: fewer active requests per weight; the first if they are equal, so that
// idle hosts are chosen by weight alone.
func (g *group) leastRequest(random func() uint64) *Host {
	i, j := g.by.two(random(), random())
	a, b := g.hosts[i], g.hosts[j]
	if b.Active()*int64(a.Weight) < a.Active()*int64(b.Weight) {
		return b
	}
	return a
}
