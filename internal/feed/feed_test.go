package feed_test

import (
	"bytes"
	"maps"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/feed"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
	"github.com/periplus-mesh/periplus/internal/xds"
)

func fromScratch(t *rapid.T, c xds.Catalog[*mesh.Snapshot], s *mesh.Snapshot) map[string]xds.Resource {
	fresh := new(mesh.Store).Restore(s.Revision(), objects(s, func(mesh.Object) bool { return true }))
	all := map[string]xds.Resource{}
	for name := range c.Names(fresh, xds.MeshObject) {
		resource, ok := c.Get(fresh, xds.MeshObject, name)
		if _, twice := all[name]; !ok || twice {
			t.Fatalf("%q: named, but there %v, twice %v", name, ok, twice)
		}
		all[name] = resource
	}
	return all
}

func objects(s *mesh.Snapshot, keep func(mesh.Object) bool) (out []mesh.Object) {
	for _, object := range s.All() {
		if keep(object) {
			out = append(out, object)
		}
	}
	return out
}

// Following Changed, with any steps skipped, leaves what reading everything has.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		catalog := feed.Catalog(translatetest.AnyCluster(t))
		store := new(mesh.Store)
		at := store.Update(translatetest.Start(t))
		have := fromScratch(t, catalog, at)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now := store.Update(translatetest.Delta(t))
			if rapid.IntRange(0, 3).Draw(t, "skip") == 0 {
				continue
			}
			for _, name := range catalog.Changed(at, now) {
				if resource, ok := catalog.Get(now, xds.MeshObject, name); ok {
					have[name] = resource
				} else {
					delete(have, name)
				}
			}
			at = now
			want := fromScratch(t, catalog, at)
			if !maps.EqualFunc(have, want, func(a, b xds.Resource) bool { return bytes.Equal(a.Delta, b.Delta) }) {
				t.Fatalf("have %d, want %d resources, or other content", len(have), len(want))
			}
		}
	})
}

// An agent that knows its own objects and the feed gives its proxies the same bytes as a controller, which knows all.
func TestAgentTranslatesAsController(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := new(mesh.Store)
		all := store.Update(translatetest.Start(t))
		for range rapid.IntRange(0, 3).Draw(t, "steps") {
			all = store.Update(translatetest.Delta(t))
		}
		cluster := translatetest.AnyCluster(t)
		agent := agentSnapshot(t, all, cluster)
		catalog := catalog.Of(translatetest.View(t, cluster))
		for _, kind := range []xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route} {
			for name := range catalog.Names(all, kind) {
				want, _ := catalog.Get(all, kind, name)
				got, ok := catalog.Get(agent, kind, name)
				if !ok || !bytes.Equal(got.Delta, want.Delta) {
					t.Fatalf("%s %q differs (there: %v)\nagent      %q\ncontroller %q", kind, name, ok, got.Any, want.Any)
				}
			}
			for name := range catalog.Names(agent, kind) {
				if _, ok := catalog.Get(all, kind, name); !ok {
					t.Fatalf("%s %q: the agent alone has it", kind, name)
				}
			}
		}
	})
}

// agentSnapshot is an agent's own objects and what the feed says, decoded as an agent does.
func agentSnapshot(t *rapid.T, all *mesh.Snapshot, cluster mesh.ClusterID) *mesh.Snapshot {
	known := objects(all, func(o mesh.Object) bool {
		owner, ok := o.Key().Cluster()
		return ok && owner == cluster && o.Key().Kind() != mesh.KindCluster
	})
	catalog := feed.Catalog(cluster)
	for name := range catalog.Names(all, xds.MeshObject) {
		resource, _ := catalog.Get(all, xds.MeshObject, name)
		object, err := meshpb.Unmarshal(body(resource.Any))
		if err == nil {
			err = object.Validate()
		}
		if err != nil || string(object.Key()) != name {
			t.Fatalf("%q: %v", name, err)
		}
		known = append(known, object)
	}
	return new(mesh.Store).Restore(1, known)
}

// body takes the value out of a marshalled Any.
func body(any []byte) []byte {
	for len(any) > 0 {
		number, kind, n := protowire.ConsumeTag(any)
		value, m := protowire.ConsumeBytes(any[n:])
		if kind != protowire.BytesType || m < 0 {
			return nil
		}
		if number == 2 {
			return value
		}
		any = any[n+m:]
	}
	return nil
}

// What is none of the agent's business is not in its feed.
func TestNeverInTheFeed(t *testing.T) {
	shop := mesh.ServiceName{Namespace: "shop", Name: "catalog"}
	ports := []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}
	s := new(mesh.Store).Update(mesh.Delta{Upserts: []mesh.Object{
		&mesh.Cluster{ID: "a"}, &mesh.Cluster{ID: "b"},
		&mesh.Service{Name: shop, Cluster: "a", Ports: ports, Exported: true},
		&mesh.Service{Name: shop, Cluster: "b", Ports: ports, Exported: true},
		&mesh.Service{Name: shop, Cluster: "c", Ports: ports},
		&mesh.Gateway{Cluster: "a", Name: "gw"}, &mesh.Gateway{Cluster: "b", Name: "gw"},
		&mesh.JoinToken{Hash: "x"}, &mesh.Cursor{Cluster: "b"}, &mesh.PolicyRevision{Revision: 1},
		&mesh.Policy{Kind: mesh.KindDestinationRule, Namespace: "shop", Name: "p", Origin: "b", Spec: &mesh.DestinationRule{}},
	}})
	want := map[string]bool{"cluster/a": true, "cluster/b": true, "gateway/b/gw": true, "service/shop/catalog/b": true}
	got := map[string]bool{}
	for name := range feed.Catalog("a").Names(s, xds.MeshObject) {
		got[name] = true
	}
	if !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for key := range s.All() {
		if _, ok := feed.Catalog("a").Get(s, xds.MeshObject, string(key)); ok != want[string(key)] {
			t.Errorf("%q: there %v", key, ok)
		}
	}
}
