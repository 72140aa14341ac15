package translate

import (
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// Catalog is what a client with view v may see of a snapshot. Results are kept in the snapshot under the part of the
// view that they depend on, so one translation serves every client that shares it.
func (v View) Catalog() xds.Catalog[*mesh.Snapshot] {
	return &catalog{view: v, shared: v.shared(), workload: v.workload()}
}

// shared is the part of a view that clusters, endpoints and routes depend on.
func (v View) shared() View {
	v.Workload = ""
	return v
}

type catalog struct {
	view     View
	shared   View
	workload Workload
}

// resourceKey finds a resource in a snapshot's memory. Only names that exist get there, so a client cannot fill it.
type resourceKey struct {
	view View
	kind xds.Type
	name string
}

func (c *catalog) Get(s *mesh.Snapshot, t xds.Type, name string) (xds.Resource, bool) {
	view, build := c.builder(s, t, name)
	if build == nil {
		return xds.Resource{}, false
	}
	resource := s.Memo(resourceKey{view, t, name}, func() any { return xds.NewResource(t, name, build()) })
	return resource.(xds.Resource), true
}

// builder finds who makes a resource, and the part of the view that it depends on; nil: it does not exist.
func (c *catalog) builder(s *mesh.Snapshot, t xds.Type, name string) (View, func() proto.Message) {
	switch t {
	case xds.Cluster:
		if in := c.inbound(name); in != nil {
			return c.view, func() proto.Message { return inboundCluster(*in) }
		}
		if r, ok := c.request(s, name); ok {
			return c.shared, func() proto.Message { return c.shared.envoyCluster(s, r) }
		}
	case xds.Endpoints:
		if r, ok := c.request(s, name); ok {
			return c.shared, func() proto.Message { return c.shared.loadAssignment(s, r) }
		}
	case xds.Route:
		if c.view.Role == Sidecar && name == routeName {
			view := View{Cluster: c.view.Cluster, Namespace: c.view.Namespace, Role: Sidecar}
			return view, func() proto.Message { return view.routes(s) }
		}
	case xds.Listener:
		if build := c.listener(s, name); build != nil {
			return c.view, build
		}
	}
	return View{}, nil
}

func (c *catalog) request(s *mesh.Snapshot, name string) (Request, bool) {
	r, ok := c.shared.parseRequestName(name)
	return r, ok && c.shared.exists(s, r)
}

func (c *catalog) inbound(name string) *Inbound {
	if c.view.Role != Sidecar {
		return nil
	}
	i := slices.IndexFunc(c.workload.Inbound, func(in Inbound) bool { return inboundName(in.EndpointPort) == name })
	if i < 0 {
		return nil
	}
	return &c.workload.Inbound[i]
}

func (c *catalog) Names(s *mesh.Snapshot, t xds.Type) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch t {
		case xds.Cluster:
			_ = c.eachRequest(s, yield) && c.view.Role == Sidecar && yieldInbound(c.workload, yield)
		case xds.Endpoints:
			c.eachRequest(s, yield)
		case xds.Route:
			if c.view.Role == Sidecar {
				yield(routeName)
			}
		case xds.Listener:
			for _, name := range c.listenerNames(s) {
				if !yield(name) {
					return
				}
			}
		}
	}
}

func (c *catalog) eachRequest(s *mesh.Snapshot, yield func(string) bool) bool {
	for service := range s.ServiceNames() {
		for r := range c.shared.requests(s, service) {
			if !yield(c.shared.requestName(r)) {
				return false
			}
		}
	}
	return true
}

func yieldInbound(w Workload, yield func(string) bool) bool {
	for _, in := range w.Inbound {
		if !yield(inboundName(in.EndpointPort)) {
			return false
		}
	}
	return true
}
