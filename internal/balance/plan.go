package balance

import (
	"math/bits"
	"sync/atomic"
)

// plan is everything a choice reads: made once per change of health, immutable but for the round-robin counters.
type plan struct {
	loads loads
	// slots maps each percent of the load to a pool.
	slots []uint16
	pools []pool
}

// pool is the hosts of one level that are in the same state of health, or all of a level in panic.
type pool struct {
	level  int
	of     Health // Healthy, which stands for panic too, or Degraded
	panics bool
	hosts  []*Host
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
	for i := range s.levels {
		if p.loads.panic[i] {
			p.append(s, pool{level: i, panics: true}, anyHealth)
			continue
		}
		p.append(s, pool{level: i}, isHealthy)
	}
	for i := range s.levels {
		if !p.loads.panic[i] {
			p.append(s, pool{level: i, of: Degraded}, isDegraded)
		}
	}
	p.slots = p.slotsFor(&p.loads)
	return p
}

// slotsFor maps each percent of the load to a pool.
func (p *plan) slotsFor(l *loads) []uint16 {
	slots := make([]uint16, 0, 100)
	for i := range p.pools {
		percent := l.healthy[p.pools[i].level]
		switch {
		case p.pools[i].panics:
			percent += l.degraded[p.pools[i].level]
		case p.pools[i].of == Degraded:
			percent = l.degraded[p.pools[i].level]
		}
		for range percent {
			slots = append(slots, uint16(i))
		}
	}
	return slots
}

// further is how the load is shared without some levels; as ever if only they can take any.
func (p *plan) further(avoid []int) []uint16 {
	rest := p.loads.available.without(avoid)
	if rest.norm() == 0 {
		return p.slots
	}
	l := spread(rest)
	return p.slotsFor(&l)
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

// append adds the pool of those hosts of its level, even if it has no share of the load: a retry may use it.
func (p *plan) append(s *Set, empty pool, use func(*Host) bool) {
	if made, ok := newPool(s, empty, use); ok {
		p.pools = append(p.pools, made)
	}
}

// newPool is false if no host of the level is to be used. A pool in panic disregards localities, as Envoy does.
func newPool(s *Set, made pool, use func(*Host) bool) (pool, bool) {
	var parts []part
	made.turn = new(atomic.Uint64)
	for _, loc := range s.levels[made.level].localities {
		part := part{weight: uint64(loc.weight)}
		var used, all tally
		for _, h := range loc.hosts {
			if use(h) {
				part.hosts = append(part.hosts, h)
			}
		}
		used.add(part.hosts, s.spec.WeightedHealth)
		all.add(loc.hosts, s.spec.WeightedHealth)
		part.effective = effectiveWeight(loc.weight, used.total, all.total, s.spec.OverprovisioningPercent)
		parts = append(parts, part)
		made.hosts = append(made.hosts, part.hosts...)
	}
	if len(made.hosts) == 0 {
		return pool{}, false
	}
	if made.panics {
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

// effectiveWeight is weight*min(1, F*used/total) in parts per million, so that small localities are not rounded away.
// What counts are the hosts of the pool alone: to the healthy pool a degraded host is one that is missing (Envoy's
// effectiveLocalityWeight).
func effectiveWeight(weight uint32, used, total uint64, overprovisioningPercent uint32) uint64 {
	if used == 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(weight)*1e6, min(100*total, uint64(overprovisioningPercent)*used))
	effective, _ := bits.Div64(high, low, 100*total)
	return effective
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
func (p *plan) pick(s *Set, slots []uint16, hash uint64) *Host {
	if len(slots) == 0 {
		return nil
	}
	pool := &p.pools[slots[hash%uint64(len(slots))]]
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
