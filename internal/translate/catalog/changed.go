package catalog

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"weak"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// Changed yields at least what may differ between two snapshots. The cost grows with the difference: an endpoint
// that comes or goes costs a look at its own service.
func (c *Catalog) Changed(old, now *mesh.Snapshot) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		if old == now {
			return
		}
		affected := affectedBetween(c.shared, old, now)
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
func (c *Catalog) changedListeners(a *affected) []string {
	var names []string
	if c.role() != translate.Sidecar {
		return nil
	}
	if c.workload.TCPOutbound {
		for _, port := range a.tcpPorts {
			names = append(names, envoy.TCPListener(port))
		}
	}
	if a.authorization {
		for i := range c.workload.Inbound {
			names = append(names, envoy.InboundListener(c.workload.Inbound[i]))
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
	old weak.Pointer[mesh.Snapshot]
	of  part
}

func affectedBetween(p part, old, now *mesh.Snapshot) *affected {
	return now.Memo(stepKey{weak.Make(old), p}, func() any {
		step := stepBetween(old, now)
		a := step.affects(p.view(), old, now)
		p.memory(now).inherit(p.memory(old), a.resources, !step.definitions)
		if routes := partOf(routeView(p.view())); !step.routes {
			routes.memory(now).inherit(routes.memory(old), nil, !step.definitions)
		}
		return a
	}).(*affected)
}

// affects finds what the step can change for a view, by name.
func (s *step) affects(v translate.View, old, now *mesh.Snapshot) *affected {
	out := &affected{authorization: s.authorization}
	seen := map[resourceName]bool{}
	add := func(kind xds.Type, name string) {
		if r := (resourceName{kind, name}); !seen[r] {
			seen[r] = true
			out.resources = append(out.resources, r)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(s.services), compareService) {
		touch := s.services[name]
		addService(v, now, name, touch, add)
		if touch.definition {
			addService(v, old, name, touch, add)
			out.tcpPorts = append(out.tcpPorts, v.TCPPorts(old, name)...)
			out.tcpPorts = append(out.tcpPorts, v.TCPPorts(now, name)...)
		}
	}
	s.addClusters(v, old, add)
	s.addClusters(v, now, add)
	if s.routes && v.Role == translate.Sidecar {
		add(xds.Route, envoy.RouteName)
	}
	if s.routes && v.Role.Proxyless() {
		s.addGRPCTargets(v, old, now, add)
	}
	slices.Sort(out.tcpPorts)
	out.tcpPorts = slices.Compact(out.tcpPorts)
	return out
}

func compareService(a, b mesh.ServiceName) int { return strings.Compare(a.Host(), b.Host()) }

func addService(v translate.View, s *mesh.Snapshot, name mesh.ServiceName, t touch, add func(xds.Type, string)) {
	for r := range v.Requests(s, name) {
		name := v.RequestName(r)
		if t.clusters || t.definition {
			add(xds.Cluster, name)
		}
		add(xds.Endpoints, name)
	}
}

// addClusters adds the endpoints of every service of a cluster whose gateways or state changed; if it is the client's
// own and its networks changed, of every service.
func (s *step) addClusters(v translate.View, at *mesh.Snapshot, add func(xds.Type, string)) {
	if len(s.clusters) == 0 {
		return
	}
	for name := range at.ServiceNames() {
		hit := s.networks[v.Cluster]
		for c := range s.clusters {
			hit = hit || at.Service(name, c) != nil
		}
		if hit {
			addService(v, at, name, touch{}, add)
		}
	}
}
