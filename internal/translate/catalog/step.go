package catalog

import (
	"maps"
	"slices"
	"weak"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// step is what differs between two snapshots, in the terms of translation, whoever asks.
type step struct {
	services      map[mesh.ServiceName]touch
	clusters      map[mesh.ClusterID]bool // its gateways, state or networks changed
	networks      map[mesh.ClusterID]bool // its networks changed
	routes        bool
	authorization bool
	policies      bool
	definitions   bool // any service's did
}

// touch says how a service changed; always its endpoints did.
type touch struct {
	clusters   bool // its Envoy clusters did, too
	definition bool // its ports, exports or subsets did, too
}

// betweenKey finds a step in the memory of the newer snapshot. The pointer is weak: a snapshot must not keep its
// predecessors alive.
type betweenKey struct{ old weak.Pointer[mesh.Snapshot] }

func stepBetween(old, now *mesh.Snapshot) *step {
	return now.Memo(betweenKey{weak.Make(old)}, func() any {
		s := &step{
			services: map[mesh.ServiceName]touch{},
			clusters: map[mesh.ClusterID]bool{}, networks: map[mesh.ClusterID]bool{},
		}
		for key, change := range mesh.Diff(old, now) {
			s.add(key, change)
		}
		if !s.policies {
			translate.CarryPolicies(old, now)
		}
		return s
	}).(*step)
}

func (s *step) add(key mesh.Key, c mesh.Change) {
	switch key.Kind() {
	case mesh.KindService:
		s.routes = true
		s.touchKey(key, touch{definition: true})
	case mesh.KindEndpoints, mesh.KindSummary:
		s.touchKey(key, touch{clusters: !sameIdentities(c.Old, c.New)})
	case mesh.KindGateway:
		cluster, _ := key.Cluster()
		s.clusters[cluster] = true
	case mesh.KindCluster:
		s.addCluster(key, c)
	case mesh.KindPolicy:
		s.policies = true
		s.addPolicy(c.Old)
		s.addPolicy(c.New)
	}
}

func (s *step) touchKey(key mesh.Key, t touch) {
	if name, _, ok := key.Service(); ok {
		s.touch(name, t)
	}
}

func (s *step) touch(name mesh.ServiceName, t touch) {
	s.definitions = s.definitions || t.definition
	have := s.services[name]
	s.services[name] = touch{have.clusters || t.clusters, have.definition || t.definition}
}

func (s *step) addCluster(key mesh.Key, c mesh.Change) {
	cluster, _ := key.Cluster()
	old, _ := c.Old.(*mesh.Cluster)
	now, _ := c.New.(*mesh.Cluster)
	same := old != nil && now != nil && slices.EqualFunc(old.Networks, now.Networks,
		func(a, b mesh.NetworkRange) bool { return a.Name == b.Name })
	if !same {
		s.networks[cluster] = true
	}
	if !same || old.State != now.State {
		s.clusters[cluster] = true
	}
}

func (s *step) addPolicy(o mesh.Object) {
	policy, ok := o.(*mesh.Policy)
	if !ok {
		return
	}
	switch spec := policy.Spec.(type) {
	case *mesh.DestinationRule:
		s.routes = true // they carry the hash policy
		s.touch(spec.Host, touch{definition: true})
	case *mesh.VirtualService:
		s.routes = true
	case *mesh.AuthorizationPolicy:
		s.authorization = true
	}
}

// sameIdentities tells whether two versions of a slice or summary give every subset the same identities.
func sameIdentities(old, now mesh.Object) bool {
	a, b := identifiedBy(old), identifiedBy(now)
	if len(a) == len(b) && slices.EqualFunc(a, b, identified.equal) {
		return true
	}
	return maps.Equal(identifiedSet(a), identifiedSet(b))
}

type identified struct {
	id     spiffeid.ID
	labels map[string]string
}

func (i identified) equal(o identified) bool { return i.id == o.id && maps.Equal(i.labels, o.labels) }

func identifiedBy(o mesh.Object) []identified {
	var out []identified
	switch o := o.(type) {
	case *mesh.EndpointSlice:
		for i := range o.Endpoints {
			out = append(out, identified{o.Endpoints[i].Identity, o.Endpoints[i].Labels})
		}
	case *mesh.Summary:
		for i := range o.Buckets {
			for _, id := range o.Buckets[i].Identities {
				out = append(out, identified{id, o.Buckets[i].Labels})
			}
		}
	}
	return out
}

func identifiedSet(all []identified) map[string]bool {
	set := make(map[string]bool, len(all))
	for _, one := range all {
		if !one.id.IsZero() {
			set[one.id.String()+"|"+translate.CanonicalLabels(one.labels)] = true
		}
	}
	return set
}
