package shares

import (
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// overprovisioning is Envoy's default factor in percent: a level is full while 72 % of its hosts are healthy.
const overprovisioning = 140

// Shares is how Envoy spreads requests over an assignment as it stands, 0..1 each; they sum to 1 unless there is
// nobody to send to. Ejections and load, which only the proxy knows, are not in it.
type Shares struct {
	Levels    []float64
	Endpoints [][]float64 // as translate.Assignment.Levels
	Panic     []bool      // per level: health is disregarded
}

// Of computes what Envoy would (load_balancer_impl.cc), with its integer percentages.
func Of(a translate.Assignment) Shares {
	total, healthy := make([]uint32, len(a.Levels)), make([]uint32, len(a.Levels))
	for i, level := range a.Levels {
		total[i] = uint32(len(level))
		for j := range level {
			if level[j].Health == mesh.Healthy {
				healthy[i]++
			}
		}
	}
	loads, panics := priorityLoads(total, healthy, a.PanicPercent)
	out := Shares{Levels: make([]float64, len(loads)), Endpoints: make([][]float64, len(loads)), Panic: panics}
	for i, level := range a.Levels {
		out.Levels[i] = float64(loads[i]) / 100
		if panics[i] {
			out.Endpoints[i] = spreadInPanic(level, out.Levels[i])
		} else {
			out.Endpoints[i] = spread(level, out.Levels[i])
		}
	}
	return out
}

// availability is the percentage of its load that a part with these hosts can take.
func availability(healthy, total uint32) uint32 {
	if total == 0 {
		return 0
	}
	return min(100, overprovisioning*healthy/total)
}

// priorityLoads gives each level its percentage of the requests.
func priorityLoads(total, healthy []uint32, panicPercent uint32) (loads []uint32, panics []bool) {
	loads, panics = make([]uint32, len(total)), make([]bool, len(total))
	if len(total) == 0 {
		return loads, panics
	}
	var sum uint32
	for i := range total {
		sum += availability(healthy[i], total[i])
	}
	norm := min(100, sum)
	if norm > 0 {
		distributeLoad(loads, norm, func(i int) uint32 { return availability(healthy[i], total[i]) })
	}
	if norm == 100 {
		return loads, panics
	}
	everywhere := panicPercent > 0
	for i := range total {
		panics[i] = panicPercent > 0 && (total[i] == 0 || 100*uint64(healthy[i]) < uint64(panicPercent)*uint64(total[i]))
		everywhere = everywhere && panics[i]
	}
	switch {
	case everywhere:
		totalPanic(loads, total)
	case norm == 0:
		loads[0] = 100
	}
	return loads, panics
}

// distributeLoad hands 100 down the levels; what rounding leaves goes to the first that takes any.
func distributeLoad(loads []uint32, norm uint32, available func(int) uint32) {
	left, first := uint32(100), -1
	for i := range loads {
		if first < 0 && available(i) > 0 {
			first = i
		}
		loads[i] = min(left, available(i)*100/norm)
		left -= loads[i]
	}
	loads[first] += left
}

// totalPanic spreads over all hosts, whatever their health, by the number of hosts in each level.
func totalPanic(loads, total []uint32) {
	var hosts uint32
	for _, n := range total {
		hosts += n
	}
	if hosts == 0 {
		loads[0] = 100
		return
	}
	left, first := uint32(100), -1
	for i, n := range total {
		loads[i] = 100 * n / hosts
		left -= loads[i]
		if first < 0 && n > 0 {
			first = i
		}
	}
	loads[first] += left
}

// spreadInPanic divides a level's share over all its hosts: neither health nor localities count.
func spreadInPanic(level []translate.Placed, share float64) []float64 {
	var sum uint64
	for i := range level {
		sum += uint64(level[i].Weight)
	}
	shares := make([]float64, len(level))
	for i := range level {
		shares[i] = share * float64(level[i].Weight) / float64(sum)
	}
	return shares
}

// spread divides a level's share over its localities, by weight and availability, and then over their hosts.
func spread(level []translate.Placed, share float64) []float64 {
	type locality struct {
		total, healthy uint32
		hostWeight     uint64 // of the hosts that get requests
		effective      float64
	}
	localities := map[mesh.Locality]*locality{}
	for i := range level {
		l := localities[level[i].Locality]
		if l == nil {
			l = &locality{}
			localities[level[i].Locality] = l
		}
		l.total++
		if level[i].Health == mesh.Healthy {
			l.healthy++
		}
		if level[i].Health == mesh.Healthy {
			l.hostWeight += uint64(level[i].Weight)
		}
	}
	var sum float64
	for i := range level {
		l := localities[level[i].Locality]
		if l.effective > 0 {
			continue
		}
		l.effective = float64(level[i].LocalityWeight) * float64(availability(l.healthy, l.total))
		sum += l.effective
	}
	shares := make([]float64, len(level))
	for i := range level {
		l := localities[level[i].Locality]
		if sum > 0 && l.hostWeight > 0 && level[i].Health == mesh.Healthy {
			shares[i] = share * l.effective / sum * float64(level[i].Weight) / float64(l.hostWeight)
		}
	}
	return shares
}
