package own

import (
	"fmt"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

var owner = Owner{Cluster: "east", Domain: spiffeid.RequireTrustDomainFromString("east.test")}

func service(name string, port uint16) *mesh.Service {
	return &mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: name}, Cluster: "east", Ports: []mesh.ServicePort{{Name: "http", Port: port, Protocol: mesh.HTTP}}}
}

func TestOwns(t *testing.T) {
	for key, want := range map[mesh.Key]bool{
		"service/shop/catalog/east":      true,
		"service/shop/catalog/west":      false,
		"service/shop/east/west":         false,
		"endpoints/shop/catalog/east/s1": true,
		"gateway/east/gw":                true,
		"gateway/west/gw":                false,
		"cluster/east":                   false, // a decision, not an observation
		"federation/east.test":           true,
		"federation/west.test":           false,
		"policy/x/y/z":                   false,
		"":                               false,
	} {
		if got := owner.Owns(key); got != want {
			t.Errorf("Owns(%q) = %v", key, got)
		}
	}
}

func TestForeignObjectPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a source wrote an object of another cluster")
		}
	}()
	foreign := service("a", 1)
	foreign.Cluster = "west"
	New(new(mesh.Store), owner).Apply(File, mesh.Delta{Upserts: []mesh.Object{foreign}})
}

// Whatever the sources do, the store has for each key what the first source that has it says, and a revision passes
// only when something changed.
func TestStoreEqualsLayersFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := new(mesh.Store)
		table := New(store, owner)
		var layers [sources]map[mesh.Key]mesh.Object
		for i := range layers {
			layers[i] = map[mesh.Key]mesh.Object{}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			source := Source(rapid.IntRange(0, int(sources)-1).Draw(t, "source"))
			var d mesh.Delta
			for range rapid.IntRange(0, 4).Draw(t, "n") {
				o := service(fmt.Sprintf("s%d", rapid.IntRange(0, 4).Draw(t, "name")), uint16(rapid.IntRange(1, 2).Draw(t, "port")))
				if rapid.Bool().Draw(t, "delete") {
					d.Deletes = append(d.Deletes, o.Key())
				} else {
					d.Upserts = append(d.Upserts, o)
				}
			}
			if rapid.Bool().Draw(t, "replace") {
				clear(layers[source])
				d.Deletes = nil
				table.Replace(source, d.Upserts)
			} else {
				table.Apply(source, d)
			}
			for _, key := range d.Deletes {
				delete(layers[source], key)
			}
			for _, o := range d.Upserts {
				layers[source][o.Key()] = o
			}
			check(t, store, layers)
		}
	})
}

func check(t *rapid.T, store *mesh.Store, layers [sources]map[mesh.Key]mesh.Object) {
	want := map[mesh.Key]mesh.Object{}
	order := precedence(mesh.KindService)
	for _, source := range slices.Backward(order[:]) {
		for key, o := range layers[source] {
			want[key] = o
		}
	}
	snapshot, _ := store.Latest()
	if snapshot.Len() != len(want) {
		t.Fatalf("store has %d objects, want %d", snapshot.Len(), len(want))
	}
	for key, o := range want {
		got, ok := snapshot.Get(key)
		if !ok || meshpb.Digest(got) != meshpb.Digest(o) {
			t.Fatalf("%s is %v, want %v", key, got, o)
		}
	}
}

func TestNoChangeNoRevision(t *testing.T) {
	store := new(mesh.Store)
	table := New(store, owner)
	table.Apply(Workloads, mesh.Delta{Upserts: []mesh.Object{service("a", 1)}})
	before, _ := store.Latest()
	table.Apply(Workloads, mesh.Delta{Upserts: []mesh.Object{service("a", 1)}})
	table.Apply(File, mesh.Delta{Upserts: []mesh.Object{service("a", 1)}})
	table.Apply(File, mesh.Delta{Deletes: []mesh.Key{service("a", 1).Key()}})
	if after, _ := store.Latest(); after != before {
		t.Errorf("revision %d became %d though nothing changed", before.Revision(), after.Revision())
	}
}

// A watched layer has what its source says, in force or not.
func TestWatchedLayer(t *testing.T) {
	table := New(new(mesh.Store), owner)
	table.Apply(Workloads, mesh.Delta{Upserts: []mesh.Object{service("a", 1)}})
	layer := table.Watch(Workloads)
	table.Apply(File, mesh.Delta{Upserts: []mesh.Object{service("b", 1)}})
	table.Apply(Workloads, mesh.Delta{Upserts: []mesh.Object{service("b", 2)}, Deletes: []mesh.Key{service("a", 1).Key()}})
	snapshot, _ := layer.Latest()
	if got, ok := snapshot.Get(service("b", 2).Key()); !ok || got.(*mesh.Service).Ports[0].Port != 2 || snapshot.Len() != 1 {
		t.Errorf("watched layer has %d objects, b is %v", snapshot.Len(), got)
	}
}
