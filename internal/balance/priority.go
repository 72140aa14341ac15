package balance

import "slices"

// tally is what one priority level, or one locality, consists of; in hosts or in their weights.
type tally struct{ healthy, degraded, total uint64 }

// availability is min(100, F*part/total), in whole percent, as Envoy computes it.
func availability(part, total uint64, overprovisioningPercent uint32) uint32 {
	if total == 0 {
		return 0
	}
	return uint32(min(100, uint64(overprovisioningPercent)*part/total))
}

// availabilities are what the healthy and the degraded hosts of each level can take, in percent of the load.
type availabilities struct{ healthy, degraded []uint32 }

// norm is what all levels can take together, at most 100.
func (a availabilities) norm() uint32 {
	var sum uint32
	for i := range a.healthy {
		sum += a.healthy[i] + a.degraded[i]
	}
	return min(100, sum)
}

// without the levels in avoid.
func (a availabilities) without(avoid []int) availabilities {
	out := availabilities{slices.Clone(a.healthy), slices.Clone(a.degraded)}
	for _, level := range avoid {
		if level >= 0 && level < len(out.healthy) {
			out.healthy[level], out.degraded[level] = 0, 0
		}
	}
	return out
}

// loads is how the levels share the load: whole percent that sum to 100 unless nothing can be used.
type loads struct {
	healthy, degraded []uint32
	panic             []bool
	available         availabilities
}

// newLoads follows LoadBalancerBase::recalculatePerPriorityState and recalculatePerPriorityPanic
// (envoy source/extensions/load_balancing_policies/common/load_balancer_impl.cc).
func newLoads(levels []tally, overprovisioningPercent, panicPercent uint32) loads {
	available := availabilities{make([]uint32, len(levels)), make([]uint32, len(levels))}
	for i, t := range levels {
		available.healthy[i] = availability(t.healthy, t.total, overprovisioningPercent)
		available.degraded[i] = availability(t.degraded, t.total, overprovisioningPercent)
	}
	l := spread(available)
	l.panic = make([]bool, len(levels))
	if available.norm() < 100 {
		l.panicWhere(levels, panicPercent)
	}
	return l
}

// spread gives 100% to the healthy hosts of each level in turn, what is left to the degraded ones, and what rounding
// leaves to the first level that has any. Nobody gets anything if nobody can take it.
func spread(a availabilities) loads {
	l := loads{healthy: make([]uint32, len(a.healthy)), degraded: make([]uint32, len(a.healthy)), available: a}
	norm := a.norm()
	if norm == 0 {
		return l
	}
	firstHealthy, left := distribute(l.healthy, a.healthy, 100, norm)
	firstDegraded, left := distribute(l.degraded, a.degraded, left, norm)
	switch {
	case firstHealthy >= 0:
		l.healthy[firstHealthy] += left
	case firstDegraded >= 0:
		l.degraded[firstDegraded] += left
	}
	return l
}

func distribute(out, available []uint32, load, norm uint32) (first int, left uint32) {
	first = -1
	for i, a := range available {
		if first < 0 && a > 0 {
			first = i
		}
		out[i] = min(load, a*100/norm)
		load -= out[i]
	}
	return first, load
}

// panicWhere marks the levels below the threshold. If all are, load follows the number of hosts, whatever their health.
func (l *loads) panicWhere(levels []tally, panicPercent uint32) {
	all := panicPercent > 0
	var total uint64
	for i, t := range levels {
		l.panic[i] = t.total == 0 && panicPercent > 0 || 100*(t.healthy+t.degraded) < uint64(panicPercent)*t.total
		all = all && l.panic[i]
		total += t.total
	}
	if !all || total == 0 {
		return
	}
	left, first := uint32(100), -1
	for i, t := range levels {
		l.healthy[i], l.degraded[i] = uint32(100*t.total/total), 0
		left -= l.healthy[i]
		if first < 0 && t.total > 0 {
			first = i
		}
	}
	l.healthy[first] += left
}
