package translate

import (
	"math"
	"slices"
	"strings"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Labels that a failoverPriority may name and that the mesh knows by itself (Istio).
const (
	labelNetwork = "topology.istio.io/network"
	labelCluster = "topology.istio.io/cluster"
	labelSubzone = "topology.istio.io/subzone"
	labelRegion  = "topology.kubernetes.io/region"
	labelZone    = "topology.kubernetes.io/zone"
)

// farthest is the rank of an endpoint that a failover rule leads away from; Istio's LbPriority has 0..4.
const farthest = 4

// prioritise sorts what is placed into levels.
func (a *assigner) prioritise() {
	ranks := make([]int, len(a.placed))
	for i := range a.placed {
		p := &a.placed[i]
		var where string
		ranks[i], where = a.rank(p)
		if p.Reason == "" {
			p.Reason = where
		} else {
			p.Reason += ", " + where
		}
	}
	levels := slices.Compact(slices.Sorted(slices.Values(ranks)))
	a.out.Levels = make([][]Placed, len(levels))
	for i, rank := range ranks {
		level, _ := slices.BinarySearch(levels, rank) // ranks become 0..N: Envoy allows no gaps
		a.out.Levels[level] = append(a.out.Levels[level], a.placed[i])
	}
	for _, level := range a.out.Levels {
		slices.SortFunc(level, order)
		bound(level)
		a.weighLocalities(level)
	}
}

// rank is how much p is wanted, 0 most, and why.
func (a *assigner) rank(p *Placed) (int, string) {
	near := proximity[distance(a.v.Locality, p.Locality)]
	switch {
	case a.v.Role == Gateway:
		return 0, "in the gateway's network"
	case a.distribute != nil:
		return 0, near + ", weighted by the distribute rule"
	case a.balance.Disabled:
		return 0, near + ", locality does not count"
	case len(a.balance.FailoverPriority) > 0:
		return a.labelRank(p), near + ", by failoverPriority"
	}
	rank := a.localityRank(p.Locality)
	if rank == farthest {
		return rank, near + ", not where the failover rule leads"
	}
	return rank, near
}

var proximity = [...]string{"same locality", "same zone", "same region", "another region"}

// distance is Istio's LbPriority. A client that does not know where it is is near to everything.
func distance(from, to mesh.Locality) int {
	switch {
	case from.Region == "":
		return 0
	case from.Region != to.Region:
		return 3
	case from.Zone != to.Zone:
		return 2
	case from.Subzone != to.Subzone:
		return 1
	}
	return 0
}

// localityRank is the distance, and the failover rule of the client's region.
func (a *assigner) localityRank(l mesh.Locality) int {
	rank := distance(a.v.Locality, l)
	if rank != 3 {
		return rank
	}
	for _, rule := range a.balance.Failover {
		if rule.From == a.v.Locality.Region && rule.To != l.Region {
			return farthest
		} else if rule.From == a.v.Locality.Region {
			return rank
		}
	}
	return rank
}

// labelRank is N minus the labels that match from the first on. A first label that names the network counts N if
// it does not match, so that the rest still orders the endpoints of other networks. With failover rules, locality
// decides inside each rank.
func (a *assigner) labelRank(p *Placed) int {
	wanted := a.balance.FailoverPriority
	extra := 0
	if wanted[0] == labelNetwork && a.network != p.Network {
		wanted, extra = wanted[1:], len(wanted)
	}
	rank := len(wanted)
	for _, label := range wanted {
		name, value, given := strings.Cut(label, "=")
		if !given {
			value = a.ownLabel(name)
		}
		if p.label(name) != value {
			break
		}
		rank--
	}
	rank += extra
	if len(a.balance.Failover) > 0 {
		return rank*(farthest+1) + a.localityRank(p.Locality)
	}
	return rank
}

func (a *assigner) ownLabel(name string) string {
	return topology(name, a.v.Locality, a.network, a.v.Cluster)
}

func (p *Placed) label(name string) string {
	if value, ok := p.labels[name]; ok {
		return value
	}
	return topology(name, p.Locality, p.Network, p.Cluster)
}

func topology(label string, l mesh.Locality, n mesh.Network, c mesh.ClusterID) string {
	switch label {
	case labelNetwork:
		return string(n)
	case labelCluster:
		return string(c)
	case labelRegion:
		return l.Region
	case labelZone:
		return l.Zone
	case labelSubzone:
		return l.Subzone
	}
	return ""
}

// matchingDistribute is the first distribute rule for the client's locality, or nil.
func matchingDistribute(b mesh.LocalityBalance, from mesh.Locality) *mesh.Distribute {
	for i := range b.Distribute {
		if !b.Disabled && localityMatches(b.Distribute[i].From, from) {
			return &b.Distribute[i]
		}
	}
	return nil
}

// localityMatches: "*" stands for the rest, and so does what a pattern does not say.
func localityMatches(pattern string, l mesh.Locality) bool {
	have := [...]string{l.Region, l.Zone, l.Subzone}
	for i, part := range strings.SplitN(pattern, "/", len(have)) {
		if part == "*" {
			return true
		}
		if part != have[i] {
			return false
		}
	}
	return true
}

// target is the most specific entry of the distribute rule that a locality falls under.
func (a *assigner) target(l mesh.Locality) (string, bool) {
	patterns := sortedKeys(a.distribute.To)
	for _, pattern := range slices.Backward(patterns) { // '*' sorts before every name
		if localityMatches(pattern, l) && a.distribute.To[pattern] > 0 {
			return pattern, true
		}
	}
	return "", false
}

// lists tells whether the distribute rule, if there is one, sends anything to l.
func (a *assigner) lists(l mesh.Locality) bool {
	if a.distribute == nil {
		return true
	}
	_, ok := a.target(l)
	return ok
}

func (a *assigner) unlisted() string {
	return "the distribute rule from " + a.distribute.From + " does not list its locality"
}

// weighLocalities gives each locality of a level the sum of its endpoints' weights or, under a distribute rule, its
// part of the percentage, rounded up as Istio does.
func (a *assigner) weighLocalities(level []Placed) {
	sums, targets := map[mesh.Locality]uint64{}, map[string]uint64{}
	for i := range level {
		sums[level[i].Locality] += uint64(level[i].Weight)
		if a.distribute != nil {
			pattern, _ := a.target(level[i].Locality)
			targets[pattern] += uint64(level[i].Weight)
		}
	}
	for i := range level {
		weight := sums[level[i].Locality]
		if a.distribute != nil {
			pattern, _ := a.target(level[i].Locality)
			total := targets[pattern]
			weight = (weight*uint64(a.distribute.To[pattern]) + total - 1) / total
		}
		level[i].LocalityWeight = saturate(weight)
	}
}

// bound scales weights so that a level's sum fits 32 bits, as Envoy demands.
func bound(level []Placed) {
	var sum uint64
	for i := range level {
		sum += uint64(level[i].Weight)
	}
	for divisor := sum/(math.MaxUint32/2) + 1; divisor > 1; divisor = 1 {
		for i := range level {
			level[i].Weight = max(uint32(uint64(level[i].Weight)/divisor), 1)
		}
	}
}

// explainRules says for people what shapes the assignment.
func (a *assigner) explainRules() {
	add := func(rule string) { a.out.Rules = append(a.out.Rules, rule) }
	for policy := range a.v.inForce(policies(a.s).rules[a.r.Service], a.r.Service) {
		add("DestinationRule " + policy.Namespace + "/" + policy.Name)
	}
	if a.r.Subset != "" && a.known {
		add("subset " + a.r.Subset)
	}
	switch {
	case a.v.Role == Gateway:
		add("a gateway spreads over all of its network")
		return
	case a.distribute != nil:
		add("distribute from " + a.distribute.From)
	case a.balance.Disabled:
		add("locality load balancing is disabled")
	case len(a.balance.FailoverPriority) > 0:
		add("failoverPriority " + strings.Join(a.balance.FailoverPriority, ", "))
	default:
		add("failover by distance")
	}
	for _, rule := range a.balance.Failover {
		if rule.From == a.v.Locality.Region && a.distribute == nil {
			add("failover from " + rule.From + " to " + rule.To)
		}
	}
}
