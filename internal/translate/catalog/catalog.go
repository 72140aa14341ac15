package catalog

import (
	"iter"
	"slices"
	"strings"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// Catalog is what a client may see. Safe for concurrent use.
type Catalog struct {
	workload translate.Workload
	// The view, and the parts of it that resources depend on.
	own, shared, routes part
}

// Of is the catalog of a client with view v.
func Of(v translate.View) *Catalog {
	shared := v
	shared.Workload = ""
	return &Catalog{workload: v.Declared(), own: partOf(v), shared: partOf(shared), routes: partOf(routeView(v))}
}

// routeView is the part of a view that its routes depend on.
func routeView(v translate.View) translate.View {
	return translate.View{Cluster: v.Cluster, Namespace: v.Namespace, Role: v.Role}
}

// Get implements [xds.Catalog].
func (c *Catalog) Get(s *mesh.Snapshot, t xds.Type, name string) (xds.Resource, bool) {
	memory := c.part(t, name).memory(s)
	if kept := memory.of(t).get(name); kept != nil {
		return kept.resource(t, name, func() []byte { return c.builder(s, t, name)() }), true
	}
	build := c.builder(s, t, name)
	if build == nil {
		return xds.Resource{}, false
	}
	return memory.of(t).add(name).resource(t, name, build), true
}

// part is what of the view a resource depends on.
func (c *Catalog) part(t xds.Type, name string) part {
	switch {
	case t == xds.Route, t == xds.Listener && c.role().Proxyless():
		return c.routes
	case t == xds.Endpoints, t == xds.Cluster && !strings.HasPrefix(name, "inbound|"):
		return c.shared
	}
	return c.own
}

// builder finds who makes a resource; nil: it does not exist.
func (c *Catalog) builder(s *mesh.Snapshot, t xds.Type, name string) func() []byte {
	if c.role().Proxyless() {
		return c.grpcBuilder(s, t, name)
	}
	switch t {
	case xds.Cluster:
		if in := c.inbound(name); in != nil {
			return func() []byte { return xds.Marshal(envoy.InboundCluster(*in)) }
		}
		if r, ok := c.request(s, name); ok {
			return func() []byte { return xds.Marshal(envoy.Cluster(s, c.shared.view(), r)) }
		}
	case xds.Endpoints:
		if r, ok := c.request(s, name); ok {
			return func() []byte { return envoy.LoadAssignment(s, c.shared.view(), r) }
		}
	case xds.Route:
		if c.role() == translate.Sidecar && name == envoy.RouteName {
			return func() []byte { return xds.Marshal(envoy.Routes(s, c.routes.view())) }
		}
	case xds.Listener:
		return c.listener(s, name)
	}
	return nil
}

func (c *Catalog) role() translate.Role { return c.own.view().Role }

func (c *Catalog) request(s *mesh.Snapshot, name string) (translate.Request, bool) {
	v := c.shared.view()
	r, ok := v.ParseRequestName(name)
	return r, ok && v.Exists(s, r)
}

func (c *Catalog) inbound(name string) *translate.Inbound {
	if c.role() != translate.Sidecar {
		return nil
	}
	i := slices.IndexFunc(c.workload.Inbound, func(in translate.Inbound) bool { return envoy.InboundName(in.EndpointPort) == name })
	if i < 0 {
		return nil
	}
	return &c.workload.Inbound[i]
}

// Names implements [xds.Catalog].
func (c *Catalog) Names(s *mesh.Snapshot, t xds.Type) iter.Seq[string] {
	if names, ok := c.grpcNames(s, t); ok {
		return names
	}
	switch t {
	case xds.Cluster:
		names := c.shared.memory(s).requests(s)
		if c.role() == translate.Sidecar && len(c.workload.Inbound) > 0 {
			names = slices.Concat(c.inboundNames(), names)
		}
		return slices.Values(names)
	case xds.Endpoints:
		return slices.Values(c.shared.memory(s).requests(s))
	case xds.Route:
		if c.role() == translate.Sidecar {
			return slices.Values([]string{envoy.RouteName})
		}
	case xds.Listener:
		return slices.Values(c.listenerNames(s))
	}
	return slices.Values[[]string](nil)
}

func (c *Catalog) inboundNames() []string {
	var names []string
	for _, in := range c.workload.Inbound {
		names = append(names, envoy.InboundName(in.EndpointPort))
	}
	return names
}
