package catalog_test

import (
	"bytes"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
	"github.com/periplus-mesh/periplus/internal/xds"
)

var types = []xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route}

type resourceName struct {
	kind xds.Type
	name string
}

// everything reads all of a snapshot.
func everything(t *rapid.T, c xds.Catalog[*mesh.Snapshot], s *mesh.Snapshot) map[resourceName]xds.Resource {
	all := map[resourceName]xds.Resource{}
	for _, kind := range types {
		for name := range c.Names(s, kind) {
			resource, ok := c.Get(s, kind, name)
			if _, twice := all[resourceName{kind, name}]; !ok || twice {
				t.Fatalf("%s %q: named, but there %v, twice %v", kind, name, ok, twice)
			}
			all[resourceName{kind, name}] = resource
		}
	}
	return all
}

// copySnapshot remembers nothing.
func copySnapshot(s *mesh.Snapshot) *mesh.Snapshot {
	var objects []mesh.Object
	for _, object := range s.All() {
		objects = append(objects, object)
	}
	return new(mesh.Store).Restore(s.Revision(), objects)
}

// Following Changed, with any steps skipped and other clients asking first, leaves what translation from scratch has, for every view and type.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := catalog.Of(translatetest.View(t, translatetest.AnyCluster(t)))
		store := new(mesh.Store)
		at := store.Update(translatetest.Start(t))
		have := everything(t, c, copySnapshot(at))
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now := store.Update(join(translatetest.Delta(t), translatetest.Summaries(t)))
			if rapid.IntRange(0, 3).Draw(t, "skip") == 0 {
				continue
			}
			if rapid.Bool().Draw(t, "others first") {
				early(t, c, now)
			}
			for kind, name := range c.Changed(at, now) {
				if resource, ok := c.Get(now, kind, name); ok {
					have[resourceName{kind, name}] = resource
				} else {
					delete(have, resourceName{kind, name})
				}
			}
			at = now
			scratch := everything(t, c, copySnapshot(at))
			same(t, have, scratch)
			same(t, everything(t, c, at), scratch) // with what memory went over from the older snapshots
		}
	})
}

func join(a, b mesh.Delta) mesh.Delta {
	return mesh.Delta{Upserts: append(a.Upserts, b.Upserts...), Deletes: append(a.Deletes, b.Deletes...)}
}

// early asks for some resources before anybody knows the step to a snapshot.
func early(t *rapid.T, c xds.Catalog[*mesh.Snapshot], s *mesh.Snapshot) {
	for _, kind := range types {
		for name := range c.Names(s, kind) {
			if rapid.IntRange(0, 5).Draw(t, "early") == 0 {
				c.Get(s, kind, name)
			}
		}
	}
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
