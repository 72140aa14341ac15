package mesh

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// Any sequence of commits leaves what a plain map would hold, every earlier snapshot as it was, and exact differences.
func TestStoreModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var store Store
		key := rapid.SampledFrom([]ClusterID{"a", "b", "c", "d", "e"})
		snapshots, models := []*Snapshot{Empty}, []map[Key]Object{{}}
		for r := range rapid.IntRange(0, 20).Draw(t, "commits") {
			model, d := maps.Clone(models[r]), Delta{}
			for _, id := range rapid.SliceOfN(key, 0, 3).Draw(t, "deletes") {
				d.Deletes = append(d.Deletes, CursorKey(id))
				delete(model, CursorKey(id))
			}
			for _, id := range rapid.SliceOfN(key, 0, 3).Draw(t, "upserts") {
				cursor := &Cursor{Cluster: id}
				d.Upserts, model[cursor.Key()] = append(d.Upserts, cursor), cursor
			}
			snapshot := store.Commit(Revision(r+1), d)
			if latest, _ := store.Latest(); latest != snapshot || snapshot.Revision() != Revision(r+1) {
				t.Fatal("the commit is not the latest")
			}
			snapshots, models = append(snapshots, snapshot), append(models, model)
		}
		for i := range snapshots {
			if got := maps.Collect(snapshots[i].All()); !maps.Equal(got, models[i]) || snapshots[i].Len() != len(models[i]) {
				t.Fatalf("snapshot %d: %v, want %v", i, got, models[i])
			}
		}
		from, to := rapid.IntRange(0, len(models)-1).Draw(t, "from"), rapid.IntRange(0, len(models)-1).Draw(t, "to")
		patched := maps.Clone(models[from])
		var order []Key
		for k, change := range Diff(snapshots[from], snapshots[to]) {
			order = append(order, k)
			if patched[k] != change.Old || change.Old == change.New {
				t.Fatalf("%s: %v", k, change)
			}
			if patched[k] = change.New; change.New == nil {
				delete(patched, k)
			}
		}
		if !maps.Equal(patched, models[to]) || !slices.IsSorted(order) {
			t.Fatalf("the difference leads to %v, want %v", patched, models[to])
		}
	})
}

func TestRevisionsRise(t *testing.T) {
	var store Store
	store.Commit(5, Delta{Upserts: []Object{&Cursor{Cluster: "a"}}})
	if s := store.Update(Delta{}); s.Revision() != 6 {
		t.Errorf("revision %d after Update", s.Revision())
	}
	if s := store.Restore(2, []Object{&Cursor{Cluster: "b"}}); s.Revision() != 2 || s.Len() != 1 {
		t.Errorf("revision %d, %d objects after Restore", s.Revision(), s.Len())
	}
	defer func() {
		if recover() == nil {
			t.Error("history was rewritten")
		}
	}()
	store.Commit(2, Delta{})
}

func TestReady(t *testing.T) {
	var store Store
	select {
	case <-store.Ready():
		t.Fatal("ready at once")
	default:
	}
	store.MarkReady()
	store.MarkReady()
	<-store.Ready()
}

func TestLatestWakes(t *testing.T) {
	var store Store
	before, next := store.Latest()
	if before != Empty {
		t.Error("nothing is not Empty")
	}
	store.Update(Delta{})
	<-next
}

// Computed once in a snapshot, whoever asks, and never carried over to the next.
func TestMemo(t *testing.T) {
	var store Store
	var computed atomic.Int32
	for round := range 3 {
		s := store.Update(Delta{})
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				got := s.Memo("key", func() any { computed.Add(1); return s.Revision() })
				if got != s.Revision() {
					t.Errorf("round %d: %v", round, got)
				}
			})
		}
		group.Wait()
	}
	if computed.Load() != 3 {
		t.Errorf("computed %d times", computed.Load())
	}
}

func TestScans(t *testing.T) {
	var store Store
	var objects []Object
	for _, n := range []ServiceName{{"shop", "cart"}, {"shop", "cart-x"}, {"shop", "catalog"}, {"web", "cart"}} {
		for _, c := range []ClusterID{"a", "b"} {
			objects = append(objects, &Service{Name: n, Cluster: c}, &EndpointSlice{Service: n, Cluster: c, Slice: "s"})
		}
	}
	s := store.Restore(1, append(objects, &Cluster{ID: "a"}, &Cluster{ID: "b"}))
	cart := ServiceName{"shop", "cart"}
	if names := slices.Collect(s.ServiceNames()); fmt.Sprint(names) != "[cart-x.shop cart.shop catalog.shop cart.web]" {
		t.Errorf("names %v", names)
	}
	if n := len(slices.Collect(s.Services(cart))); n != 2 { // not cart-x
		t.Errorf("%d clusters have it", n)
	}
	if n := len(slices.Collect(s.Endpoints(cart))); n != 2 {
		t.Errorf("%d slices", n)
	}
	if s.Cluster("a") == nil || s.Cluster("c") != nil || s.Service(cart, "b") == nil || len(slices.Collect(s.Clusters())) != 2 {
		t.Error("clusters or services are not found")
	}
}
