package translate

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"weak"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// Changed yields at least what may differ between two snapshots. The cost grows with the difference: an endpoint
// that comes or goes costs a look at its own service.
func (c *catalog) Changed(old, now *mesh.Snapshot) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		if old == now {
			return
		}
		affected := c.shared.affected(old, now)
		for _, a := range affected.resources {
			if !yield(a.kind, a.name) {
				return
			}
		}
		for _, name := range c.changedListeners(affected) {
			if !yield(xds.Listener, name) {
				return
			}
		}
	}
}

// changedListeners are the only names that depend on the workload.
func (c *catalog) changedListeners(a *affected) []string {
	var names []string
	if c.view.Role != Sidecar {
		return nil
	}
	if c.workload.TCPOutbound {
		for _, port := range a.tcpPorts {
			names = append(names, tcpListenerName(port))
		}
	}
	if a.authorization {
		for i := range c.workload.Inbound {
			names = append(names, c.workload.Inbound[i].listenerName())
		}
	}
	return names
}

// affected is what of a view's resources a step between snapshots can change.
type affected struct {
	resources     []resourceName
	tcpPorts      []uint16
	authorization bool
}

type resourceName struct {
	kind xds.Type
	name string
}

// stepKey finds what is known of a step in the memory of the newer snapshot. The pointer is weak: a snapshot must
// not keep its predecessors alive.
type stepKey struct {
	old  weak.Pointer[mesh.Snapshot]
	view View
}

// anyStepKey is stepKey for what does not depend on the view.
type anyStepKey struct{ old weak.Pointer[mesh.Snapshot] }

func (v View) affected(old, now *mesh.Snapshot) *affected {
	key := stepKey{weak.Make(old), v}
	return now.Memo(key, func() any { return v.computeAffected(old, now) }).(*affected)
}

func (v View) computeAffected(old, now *mesh.Snapshot) *affected {
	step := stepBetween(old, now)
	out := &affected{authorization: step.authorization}
	seen := map[resourceName]bool{}
	add := func(kind xds.Type, name string) {
		if r := (resourceName{kind, name}); !seen[r] {
			seen[r] = true
			out.resources = append(out.resources, r)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(step.services), compareService) {
		touch := step.services[name]
		v.addService(now, name, touch, add)
		if touch.definition {
			v.addService(old, name, touch, add)
			out.tcpPorts = append(out.tcpPorts, v.tcpPorts(old, name)...)
			out.tcpPorts = append(out.tcpPorts, v.tcpPorts(now, name)...)
		}
	}
	v.addClusters(old, step, add)
	v.addClusters(now, step, add)
	if step.routes && v.Role == Sidecar {
		add(xds.Route, routeName)
	}
	slices.Sort(out.tcpPorts)
	out.tcpPorts = slices.Compact(out.tcpPorts)
	return out
}

func compareService(a, b mesh.ServiceName) int { return strings.Compare(a.Host(), b.Host()) }

func (v View) addService(s *mesh.Snapshot, name mesh.ServiceName, t touch, add func(xds.Type, string)) {
	for r := range v.requests(s, name) {
		name := v.requestName(r)
		if t.clusters || t.definition {
			add(xds.Cluster, name)
		}
		add(xds.Endpoints, name)
	}
}

// addClusters adds the endpoints of every service of a cluster whose gateways or state changed; if it is the client's
// own and its networks changed, of every service.
func (v View) addClusters(s *mesh.Snapshot, step *step, add func(xds.Type, string)) {
	if len(step.clusters) == 0 {
		return
	}
	for name := range s.ServiceNames() {
		hit := step.networks[v.Cluster]
		for c := range step.clusters {
			hit = hit || s.Service(name, c) != nil
		}
		if hit {
			v.addService(s, name, touch{}, add)
		}
	}
}

func (v View) tcpPorts(s *mesh.Snapshot, name mesh.ServiceName) []uint16 {
	var ports []uint16
	for _, port := range v.ports(s, name) {
		if port.Protocol == mesh.TCP {
			ports = append(ports, port.Port)
		}
	}
	return ports
}

// step is what differs between two snapshots, in the terms of translation, whoever asks.
type step struct {
	services      map[mesh.ServiceName]touch
	clusters      map[mesh.ClusterID]bool // its gateways, state or networks changed
	networks      map[mesh.ClusterID]bool // its networks changed
	routes        bool
	authorization bool
	policies      bool
}

// touch says how a service changed; always its endpoints did.
type touch struct {
	clusters   bool // its Envoy clusters did, too
	definition bool // its ports, exports or subsets did, too
}

func stepBetween(old, now *mesh.Snapshot) *step {
	return now.Memo(anyStepKey{weak.Make(old)}, func() any {
		s := &step{
			services: map[mesh.ServiceName]touch{},
			clusters: map[mesh.ClusterID]bool{}, networks: map[mesh.ClusterID]bool{},
		}
		for key, change := range mesh.Diff(old, now) {
			s.add(key, change)
		}
		if !s.policies {
			carry(old, now)
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
			set[one.id.String()+"|"+canonicalLabels(one.labels)] = true
		}
	}
	return set
}

// canonicalLabels is unambiguous: no label has a control character.
func canonicalLabels(labels map[string]string) string {
	var b strings.Builder
	for _, name := range sortedKeys(labels) {
		b.WriteString(name + "\x00" + labels[name] + "\x01")
	}
	return b.String()
}
