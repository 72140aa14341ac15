package balance

// tally is what one priority level, or one locality, consists of; in hosts or in their weights.
type tally struct{ healthy, degraded, total uint64 }

// availability is min(100, F*part/total), in whole percent, as Envoy computes it.
func availability(part, total uint64, overprovisioningPercent uint32) uint32 {
	if total == 0 {
		return 0
	}
	return uint32(min(100, uint64(overprovisioningPercent)*part/total))
}

// loads is how the levels share the load: whole percent that sum to 100 unless nothing can be used.
type loads struct {
	healthy, degraded []uint32
	panic             []bool
}

// newLoads follows LoadBalancerBase::recalculatePerPriorityState and recalculatePerPriorityPanic
// (envoy source/extensions/load_balancing_policies/common/load_balancer_impl.cc).
func newLoads(levels []tally, overprovisioningPercent, panicPercent uint32) loads {
	l := loads{make([]uint32, len(levels)), make([]uint32, len(levels)), make([]bool, len(levels))}
	healthy, degraded := make([]uint32, len(levels)), make([]uint32, len(levels))
	var sum uint32
	for i, t := range levels {
		healthy[i] = availability(t.healthy, t.total, overprovisioningPercent)
		degraded[i] = availability(t.degraded, t.total, overprovisioningPercent)
		sum += healthy[i] + degraded[i]
	}
	norm := min(100, sum)
	if norm > 0 {
		l.share(healthy, degraded, norm)
	}
	if norm < 100 {
		l.panicWhere(levels, panicPercent)
	}
	return l
}

// share gives 100% to the healthy hosts of each level in turn, what is left to the degraded ones, and what rounding
// leaves to the first level that has any.
func (l *loads) share(healthy, degraded []uint32, norm uint32) {
	firstHealthy, left := distribute(l.healthy, healthy, 100, norm)
	firstDegraded, left := distribute(l.degraded, degraded, left, norm)
	switch {
	case firstHealthy >= 0:
		l.healthy[firstHealthy] += left
	case firstDegraded >= 0:
		l.degraded[firstDegraded] += left
	}
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
