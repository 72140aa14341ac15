package translate_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
	"github.com/periplus-mesh/periplus/internal/xds"
)

var types = []xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route}

type resourceName struct {
	kind xds.Type
	name string
}

// fromScratch reads everything from a snapshot that remembers nothing.
func fromScratch(t *rapid.T, c xds.Catalog[*mesh.Snapshot], s *mesh.Snapshot) map[resourceName]xds.Resource {
	fresh := copySnapshot(s)
	all := map[resourceName]xds.Resource{}
	for _, kind := range types {
		for name := range c.Names(fresh, kind) {
			resource, ok := c.Get(fresh, kind, name)
			if _, twice := all[resourceName{kind, name}]; !ok || twice {
				t.Fatalf("%s %q: named, but there %v, twice %v", kind, name, ok, twice)
			}
			all[resourceName{kind, name}] = resource
		}
	}
	return all
}

func copySnapshot(s *mesh.Snapshot) *mesh.Snapshot {
	var objects []mesh.Object
	for _, object := range s.All() {
		objects = append(objects, object)
	}
	return new(mesh.Store).Restore(s.Revision(), objects)
}

// Following Changed, with any steps skipped, leaves what translation from scratch has, for every view and type.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		catalog := translatetest.View(t, translatetest.AnyCluster(t)).Catalog()
		store := new(mesh.Store)
		at := store.Update(translatetest.Start(t))
		have := fromScratch(t, catalog, at)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now := store.Update(translatetest.Delta(t))
			if rapid.IntRange(0, 3).Draw(t, "skip") == 0 {
				continue
			}
			for kind, name := range catalog.Changed(at, now) {
				if resource, ok := catalog.Get(now, kind, name); ok {
					have[resourceName{kind, name}] = resource
				} else {
					delete(have, resourceName{kind, name})
				}
			}
			at = now
			same(t, have, fromScratch(t, catalog, at))
		}
	})
}

func same(t *rapid.T, have, want map[resourceName]xds.Resource) {
	equal := func(a, b xds.Resource) bool { return a.Version == b.Version && bytes.Equal(a.Any, b.Any) }
	if maps.EqualFunc(have, want, equal) {
		return
	}
	for name, resource := range want {
		if got, ok := have[name]; !ok || !equal(got, resource) {
			t.Errorf("%s %q: stale or missing (%v)", name.kind, name.name, ok)
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			t.Errorf("%s %q: should be gone", name.kind, name.name)
		}
	}
	t.FailNow()
}

// Every endpoint is placed, counted behind gateways, or dropped: once. Everything has a reason.
func TestEveryEndpointOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := new(mesh.Store)
		snapshot := store.Update(translatetest.Start(t))
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			snapshot = store.Update(translatetest.Delta(t))
		}
		v := translatetest.View(t, translatetest.AnyCluster(t))
		for name := range snapshot.ServiceNames() {
			a := translate.Assign(snapshot, v, translate.Request{Service: name, Port: 80, Subset: rapid.SampledFrom([]string{"", "v1"}).Draw(t, "subset")})
			endpoints := 0
			for slice := range snapshot.Endpoints(name) {
				endpoints += len(slice.Endpoints)
			}
			if got := accounted(t, a); got != endpoints {
				t.Fatalf("%s: %d accounted for of %d: %+v", name, got, endpoints, a)
			}
			checkLevels(t, a)
		}
	})
}

func accounted(t *rapid.T, a translate.Assignment) int {
	type network struct {
		mesh.ClusterID
		mesh.Network
	}
	behind := map[network]uint32{}
	n := 0
	for _, level := range a.Levels {
		for _, p := range level {
			if p.Reason == "" || p.Weight == 0 || p.LocalityWeight == 0 || p.StandsFor == 0 {
				t.Fatalf("incomplete: %+v", p)
			}
			if p.Gateway {
				behind[network{p.Cluster, p.Network}] = p.StandsFor
			} else {
				n++
			}
		}
	}
	for _, d := range a.Dropped {
		if d.Reason == "" || d.Count == 0 {
			t.Fatalf("incomplete: %+v", d)
		}
		n += int(d.Count)
	}
	for _, count := range behind {
		n += int(count)
	}
	return n
}

// Levels have no gaps, and no address is there twice.
func checkLevels(t *rapid.T, a translate.Assignment) {
	seen := map[string]bool{}
	for i, level := range a.Levels {
		if len(level) == 0 {
			t.Fatalf("level %d is empty", i)
		}
		for _, p := range level {
			if seen[p.Address.String()] {
				t.Fatalf("%s twice", p.Address)
			}
			seen[p.Address.String()] = true
		}
	}
	if shares := a.Shares(); len(a.Levels) > 0 {
		var sum float64
		for _, level := range shares.Levels {
			sum += level
		}
		if sum < 0.999 || sum > 1.001 || slices.Min(shares.Levels) < 0 {
			t.Fatalf("shares %v", shares.Levels)
		}
	}
}
