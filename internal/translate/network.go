package translate

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// gatewaySet are the gateways into one network of one cluster that are worth a try: the healthy ones or, if there
// is none, the unhealthy ones. A gateway is a way and not capacity, so an unhealthy one beside a healthy one would
// only lower the health of its level. Draining ones take no new connections.
type gatewaySet struct {
	network  mesh.Network
	gateways []*mesh.Gateway // by name
}

func gatewaySets(s *mesh.Snapshot, c mesh.ClusterID) []*gatewaySet {
	var sets []*gatewaySet
	for gateway := range gatewaysOf(s, c) {
		if gateway.Health == mesh.Draining {
			continue
		}
		i := slices.IndexFunc(sets, func(g *gatewaySet) bool { return g.network == gateway.Network })
		if i < 0 {
			i = len(sets)
			sets = append(sets, &gatewaySet{network: gateway.Network})
		}
		sets[i].gateways = append(sets[i].gateways, gateway)
	}
	for _, set := range sets {
		unhealthy := func(g *mesh.Gateway) bool { return g.Health != mesh.Healthy }
		if healthy := slices.DeleteFunc(slices.Clone(set.gateways), unhealthy); len(healthy) > 0 {
			set.gateways = healthy
		}
	}
	return sets
}

func (f source) gatewaysInto(network mesh.Network) *gatewaySet {
	for _, set := range f.gateways {
		if set.network == network {
			return set
		}
	}
	return nil
}

// count is how much stands behind something.
type count struct {
	total, healthy uint32
	healthyWeight  uint64
}

// countEndpoint counts an endpoint that is not draining.
func countEndpoint(e *mesh.Endpoint) count {
	if e.Health == mesh.Healthy {
		return count{1, 1, uint64(max(e.Weight, 1))}
	}
	return count{total: 1}
}

// group is what the client reaches through one set of gateways.
type group struct {
	cluster mesh.ClusterID
	set     *gatewaySet
	count
}

func (g *group) add(c count) {
	g.total = saturate(uint64(g.total) + uint64(c.total))
	g.healthy = saturate(uint64(g.healthy) + uint64(c.healthy))
	g.healthyWeight += c.healthyWeight
}

func saturate(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

func (a *assigner) behind(from source, network mesh.Network) *group {
	for _, g := range a.groups {
		if g.cluster == from.cluster && g.set.network == network {
			return g
		}
	}
	g := &group{cluster: from.cluster, set: from.gatewaysInto(network)}
	a.groups = append(a.groups, g)
	return g
}

// enterNetworks places the gateways, each address once, with its share of the healthy weight behind it.
func (a *assigner) enterNetworks() {
	// Slices and summaries of the same endpoints are found in different orders.
	slices.SortFunc(a.groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.cluster, b.cluster), cmp.Compare(a.set.network, b.set.network))
	})
	at := map[netip.AddrPort]int{}
	for _, g := range a.groups {
		gateways := slices.DeleteFunc(slices.Clone(g.set.gateways), func(g *mesh.Gateway) bool { return !a.lists(g.Locality) })
		if len(gateways) == 0 {
			a.dropGroup(g)
			continue
		}
		for i, weight := range split(g.healthyWeight, len(gateways)) {
			entry := g.placed(gateways[i], weight)
			if j, twice := at[entry.Address]; twice {
				merge(&a.placed[j], entry)
				continue
			}
			at[entry.Address] = len(a.placed)
			a.placed = append(a.placed, entry)
		}
	}
}

// dropGroup drops all that is behind gateways of which a distribute rule lists none.
func (a *assigner) dropGroup(g *group) {
	first := g.set.gateways[0]
	a.out.Dropped = append(a.out.Dropped, Dropped{
		Cluster: g.cluster, Network: g.set.network, Locality: first.Locality, Health: first.Health,
		Weight: saturate(g.healthyWeight), Count: g.total, Reason: a.unlisted() + ": the gateway's",
	})
}

// placed is a gateway as the client sees it: as healthy as what is behind it.
func (g *group) placed(gateway *mesh.Gateway, weight uint32) Placed {
	health := gateway.Health
	if g.healthy == 0 {
		health = mesh.Unhealthy
	}
	return Placed{
		Name: gateway.Name, Cluster: g.cluster, Network: g.set.network,
		Address: netip.AddrPortFrom(gateway.Address, gateway.Port), Locality: gateway.Locality,
		Health: health, Weight: weight, Gateway: true, StandsFor: g.total,
		Reason: "gateway to " + strconv.Itoa(int(g.healthy)) + " healthy of " + strconv.Itoa(int(g.total)) +
			" endpoints in network " + string(g.set.network) + " of cluster " + string(g.cluster),
	}
}

// merge joins an address that is the way into two networks or clusters (a load balancer before both).
func merge(into *Placed, other Placed) {
	into.Weight = saturate(uint64(into.Weight) + uint64(other.Weight))
	into.StandsFor = saturate(uint64(into.StandsFor) + uint64(other.StandsFor))
	into.Reason += "; " + other.Reason
	if other.Health == mesh.Healthy {
		into.Health = mesh.Healthy
	}
}

// split divides total over n so that the parts differ by at most one and keep the sum, but none is 0: Envoy
// refuses that weight.
func split(total uint64, n int) []uint32 {
	parts := make([]uint32, n)
	for i := range parts {
		part := total / uint64(n)
		if uint64(i) < total%uint64(n) {
			part++
		}
		parts[i] = max(saturate(part), 1)
	}
	return parts
}
