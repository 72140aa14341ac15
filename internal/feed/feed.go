package feed

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"weak"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// Catalog is the feed to the agent of a cluster. It has one type, [xds.MeshObject].
func Catalog(cluster mesh.ClusterID) xds.Catalog[*mesh.Snapshot] { return catalog{cluster} }

type catalog struct{ cluster mesh.ClusterID }

type resourceKey struct {
	shared string // the networks by which endpoints were chosen; empty for the other kinds
	name   string
}

func (c catalog) Get(s *mesh.Snapshot, t xds.Type, name string) (xds.Resource, bool) {
	if t != xds.MeshObject {
		return xds.Resource{}, false
	}
	object, ok := c.object(s, mesh.Key(name))
	if !ok {
		return xds.Resource{}, false
	}
	key := resourceKey{name: name}
	if mesh.Key(name).Kind() == mesh.KindEndpoints {
		key.shared = c.shared(s).text
	}
	resource := s.Memo(key, func() any { return xds.NewRawResource(t, name, meshpb.Marshal(object)) })
	return resource.(xds.Resource), true
}

// object is what the agent sees at a key.
func (c catalog) object(s *mesh.Snapshot, key mesh.Key) (mesh.Object, bool) {
	if key.Kind() == mesh.KindSummary {
		return c.summary(s, key)
	}
	object, ok := s.Get(key)
	if !ok {
		return nil, false
	}
	switch o := object.(type) {
	case *mesh.Cluster, *mesh.Federation:
		return o, true
	case *mesh.Policy:
		return o, o.AppliesTo(c.cluster)
	case *mesh.Gateway:
		return o, o.Cluster != c.cluster
	case *mesh.Service:
		return o, o.Exported && o.Cluster != c.cluster
	case *mesh.EndpointSlice:
		if !c.mayKnow(s, o.Service, o.Cluster) {
			return nil, false
		}
		slice := c.shared(s).filter(o)
		return slice, len(slice.Endpoints) > 0
	}
	return nil, false
}

// mayKnow tells whether the agent may know anything of a cluster's endpoints of a service.
func (c catalog) mayKnow(s *mesh.Snapshot, name mesh.ServiceName, cluster mesh.ClusterID) bool {
	service := s.Service(name, cluster)
	return cluster != c.cluster && service != nil && service.Exported
}

func (c catalog) summary(s *mesh.Snapshot, key mesh.Key) (mesh.Object, bool) {
	name, cluster, ok := key.Service()
	if !ok || !c.mayKnow(s, name, cluster) {
		return nil, false
	}
	summary, ok := summaries(s, name, cluster)[key]
	return summary, ok && !c.shared(s).has(summary.Network)
}

// networks are those that the agent's cluster has.
type networks struct {
	names []mesh.Network
	text  string
}

type networksKey struct{ cluster mesh.ClusterID }

func (c catalog) shared(s *mesh.Snapshot) *networks {
	return s.Memo(networksKey(c), func() any {
		n := &networks{}
		if own := s.Cluster(c.cluster); own != nil {
			for _, network := range own.Networks {
				n.names = append(n.names, network.Name)
			}
		}
		slices.Sort(n.names)
		for _, name := range n.names {
			n.text += string(name) + "/"
		}
		return n
	}).(*networks)
}

func (n *networks) has(name mesh.Network) bool { return slices.Contains(n.names, name) }

// filter keeps the endpoints in these networks; the slice itself if that is all of them.
func (n *networks) filter(slice *mesh.EndpointSlice) *mesh.EndpointSlice {
	foreign := func(e mesh.Endpoint) bool { return !n.has(e.Network) }
	if !slices.ContainsFunc(slice.Endpoints, foreign) {
		return slice
	}
	some := *slice
	some.Endpoints = slices.DeleteFunc(slices.Clone(slice.Endpoints), foreign)
	return &some
}

type summariesKey struct {
	service mesh.ServiceName
	cluster mesh.ClusterID
}

// summaries are those of one cluster's endpoints of a service, for every network, by key. They do not depend on who
// asks.
func summaries(s *mesh.Snapshot, name mesh.ServiceName, cluster mesh.ClusterID) map[mesh.Key]*mesh.Summary {
	return s.Memo(summariesKey{name, cluster}, func() any {
		var all []*mesh.EndpointSlice
		in := map[mesh.Network]bool{}
		for _, object := range s.Scan(string(mesh.EndpointsKey(name, cluster, ""))) {
			slice := object.(*mesh.EndpointSlice)
			all = append(all, slice)
			for i := range slice.Endpoints {
				in[slice.Endpoints[i].Network] = true
			}
		}
		out := map[mesh.Key]*mesh.Summary{}
		for network := range in {
			for _, summary := range translate.Summarize(all, network) {
				out[summary.Key()] = summary
			}
		}
		return out
	}).(map[mesh.Key]*mesh.Summary)
}

func (c catalog) Names(s *mesh.Snapshot, t xds.Type) iter.Seq[string] {
	return func(yield func(string) bool) {
		if t != xds.MeshObject {
			return
		}
		for key, object := range s.All() {
			if _, ok := c.object(s, key); ok && !yield(string(key)) {
				return
			}
			service, ok := object.(*mesh.Service)
			if !ok {
				continue
			}
			for key := range c.summaryKeys(s, service.Name, service.Cluster) {
				if !yield(string(key)) {
					return
				}
			}
		}
	}
}

// summaryKeys yields the keys of the summaries that the agent gets, in order.
func (c catalog) summaryKeys(s *mesh.Snapshot, name mesh.ServiceName, cluster mesh.ClusterID) iter.Seq[mesh.Key] {
	return func(yield func(mesh.Key) bool) {
		if !c.mayKnow(s, name, cluster) {
			return
		}
		all := summaries(s, name, cluster)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if !c.shared(s).has(all[key].Network) && !yield(key) {
				return
			}
		}
	}
}

// stepKey finds what changed in the memory of the newer snapshot; the pointer is weak, so that a snapshot does not
// keep its predecessors alive.
type stepKey struct {
	old     weak.Pointer[mesh.Snapshot]
	cluster mesh.ClusterID
}

func (c catalog) Changed(old, now *mesh.Snapshot) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		if old == now {
			return
		}
		names := now.Memo(stepKey{weak.Make(old), c.cluster}, func() any { return c.changed(old, now) }).([]string)
		for _, name := range names {
			if !yield(xds.MeshObject, name) {
				return
			}
		}
	}
}

// changed are the names that may differ, sorted.
func (c catalog) changed(old, now *mesh.Snapshot) []string {
	names := map[string]bool{}
	if c.shared(old).text != c.shared(now).text {
		c.addEndpoints(old, names)
		c.addEndpoints(now, names)
	}
	for key, change := range mesh.Diff(old, now) {
		switch key.Kind() {
		case mesh.KindCluster, mesh.KindFederation, mesh.KindPolicy:
			names[string(key)] = true
		case mesh.KindGateway:
			if cluster, _ := key.Cluster(); cluster != c.cluster {
				names[string(key)] = true
			}
		case mesh.KindService:
			c.addService(old, now, key, names)
		case mesh.KindEndpoints:
			c.addSlice(old, now, key, change, names)
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// addService adds a service and, if it is exported only before or only after, what depends on that.
func (c catalog) addService(old, now *mesh.Snapshot, key mesh.Key, names map[string]bool) {
	name, cluster, _ := key.Service()
	before, after := c.mayKnow(old, name, cluster), c.mayKnow(now, name, cluster)
	if before || after {
		names[string(key)] = true
	}
	if before == after {
		return
	}
	for _, s := range []*mesh.Snapshot{old, now} {
		for key := range s.Scan(string(mesh.EndpointsKey(name, cluster, ""))) {
			names[string(key)] = true
		}
		for key := range c.summaryKeys(s, name, cluster) {
			names[string(key)] = true
		}
	}
}

// addSlice adds a slice if the agent may see an address in it, and the summaries that it contributes to.
func (c catalog) addSlice(old, now *mesh.Snapshot, key mesh.Key, change mesh.Change, names map[string]bool) {
	name, cluster, _ := key.Service()
	if !c.mayKnow(old, name, cluster) && !c.mayKnow(now, name, cluster) {
		return
	}
	for s, object := range map[*mesh.Snapshot]mesh.Object{old: change.Old, now: change.New} {
		if slice, ok := object.(*mesh.EndpointSlice); ok && len(c.shared(s).filter(slice).Endpoints) > 0 {
			names[string(key)] = true
		}
		for key := range c.summaryKeys(s, name, cluster) {
			names[string(key)] = true
		}
	}
}

// addEndpoints adds everything that depends on which networks the agent's cluster has.
func (c catalog) addEndpoints(s *mesh.Snapshot, names map[string]bool) {
	for name := range c.Names(s, xds.MeshObject) {
		if strings.HasPrefix(name, string(mesh.KindEndpoints)+"/") || strings.HasPrefix(name, string(mesh.KindSummary)+"/") {
			names[name] = true
		}
	}
}
