package catalog

import (
	"iter"
	"slices"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// grpcBuilder finds who makes a resource for a client without a proxy; nil: it does not exist.
func (c *Catalog) grpcBuilder(s *mesh.Snapshot, t xds.Type, name string) func() []byte {
	shared, routes := c.shared.view(), c.routes.view()
	switch t {
	case xds.Cluster, xds.Endpoints:
		r, ok := c.request(s, name)
		switch {
		case !ok:
		case t == xds.Cluster:
			return func() []byte { return xds.Marshal(envoy.GRPCCluster(s, shared, r)) }
		default:
			return func() []byte { return envoy.GRPCLoadAssignment(s, shared, r) }
		}
	case xds.Listener, xds.Route:
		r, ok := envoy.ParseGRPCTarget(s, routes, name)
		switch {
		case !ok:
		case t == xds.Listener:
			return func() []byte { return xds.Marshal(envoy.GRPCListener(name)) }
		default:
			return func() []byte { return xds.Marshal(envoy.GRPCRoutes(s, routes, name, r)) }
		}
	}
	return nil
}

// grpcTargets yields the names of all listeners, and of all route configurations.
func (c *Catalog) grpcTargets(s *mesh.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range s.ServiceNames() {
			for _, target := range envoy.GRPCTargets(s, c.routes.view(), name) {
				if !yield(target) {
					return
				}
			}
		}
	}
}

// addGRPCTargets adds the listeners and routes that the step can change: those of services that are defined
// otherwise, and of all services whose VirtualService may have changed or may lead to one of them.
func (s *step) addGRPCTargets(v translate.View, old, now *mesh.Snapshot, add func(xds.Type, string)) {
	for _, at := range []*mesh.Snapshot{old, now} {
		for name := range at.ServiceNames() {
			if !s.services[name].definition && v.VirtualService(old, name) == nil && v.VirtualService(now, name) == nil {
				continue
			}
			for _, target := range envoy.GRPCTargets(at, v, name) {
				add(xds.Listener, target)
				add(xds.Route, target)
			}
		}
	}
}

// grpcNames are the names of a type for a client without a proxy, or false if they are as for everybody.
func (c *Catalog) grpcNames(s *mesh.Snapshot, t xds.Type) (iter.Seq[string], bool) {
	if !c.role().Proxyless() || !slices.Contains([]xds.Type{xds.Listener, xds.Route}, t) {
		return nil, false
	}
	return c.grpcTargets(s), true
}
