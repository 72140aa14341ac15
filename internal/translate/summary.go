package translate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Summarize says of the endpoints in one network what other networks need to know: a client that knows the
// summaries gets the same resources as one that knows the slices. There is one summary for each service, cluster
// and locality, sorted by key. Draining endpoints count nothing but keep their identities, and endpoints without
// an identity are left out: nobody can reach them from another network.
func Summarize(all []*mesh.EndpointSlice, network mesh.Network) []*mesh.Summary {
	summaries := map[mesh.Key]*mesh.Summary{}
	for _, slice := range all {
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.Network != network || e.Identity.IsZero() {
				continue
			}
			s := &mesh.Summary{Service: slice.Service, Cluster: slice.Cluster, Network: network, Locality: e.Locality}
			if have, ok := summaries[s.Key()]; ok {
				s = have
			} else {
				summaries[s.Key()] = s
			}
			addToBucket(s, e)
		}
	}
	out := make([]*mesh.Summary, 0, len(summaries))
	for _, key := range slices.Sorted(maps.Keys(summaries)) {
		s := summaries[key]
		slices.SortFunc(s.Buckets, compareBuckets)
		out = append(out, s)
	}
	return out
}

func addToBucket(s *mesh.Summary, e *mesh.Endpoint) {
	ports := sortedKeys(e.Ports)
	i := slices.IndexFunc(s.Buckets, func(b mesh.SummaryBucket) bool {
		return slices.Equal(b.PortNames, ports) && maps.Equal(b.Labels, e.Labels)
	})
	if i < 0 {
		i = len(s.Buckets)
		s.Buckets = append(s.Buckets, mesh.SummaryBucket{Labels: e.Labels, PortNames: ports})
	}
	b := &s.Buckets[i]
	compare := func(a, b spiffeid.ID) int { return cmp.Compare(a.String(), b.String()) }
	if at, found := slices.BinarySearchFunc(b.Identities, e.Identity, compare); !found {
		b.Identities = slices.Insert(b.Identities, at, e.Identity)
	}
	if e.Health == mesh.Draining {
		return
	}
	c := countEndpoint(e)
	b.Total += c.total
	b.Healthy += c.healthy
	b.HealthyWeight = saturate(uint64(b.HealthyWeight) + c.healthyWeight)
}

func compareBuckets(a, b mesh.SummaryBucket) int {
	return cmp.Or(strings.Compare(CanonicalLabels(a.Labels), CanonicalLabels(b.Labels)), slices.Compare(a.PortNames, b.PortNames))
}

// CanonicalLabels is unambiguous: no label has a control character.
func CanonicalLabels(labels map[string]string) string {
	var b strings.Builder
	for _, name := range sortedKeys(labels) {
		b.WriteString(name + "\x00" + labels[name] + "\x01")
	}
	return b.String()
}
