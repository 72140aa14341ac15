package report

import (
	"fmt"
	"maps"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

var owner = own.Owner{Cluster: "east", Domain: spiffeid.RequireTrustDomainFromString("east.test")}

func service(cluster mesh.ClusterID, name string, port uint16) *mesh.Service {
	return &mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: name}, Cluster: cluster, Ports: []mesh.ServicePort{{Name: "http", Port: port, Protocol: mesh.HTTP}}}
}

// plane is what a controller would have after the updates.
type plane map[string][]byte

func (p plane) take(u *pb.Update) {
	for _, o := range u.GetUpserts() {
		object, err := meshpb.Decode(o)
		if err != nil {
			panic(err)
		}
		p[string(object.Key())] = digestOf(object)
	}
	for _, key := range u.GetDeletes() {
		delete(p, key)
	}
}

// Whatever happens to the store, and however often the stream is lost, with or without its last update having
// arrived, in the end the controller has exactly the own cluster's objects.
func TestControllerEndsWithWhatTheStoreHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, p := new(mesh.Store), plane{"service/shop/old/east": {1}, "service/shop/other/west": {1}}
		snapshot, _ := store.Latest()
		l := newLedger(owner, p, snapshot)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				o := service([]mesh.ClusterID{"east", "west"}[rapid.IntRange(0, 1).Draw(t, "cluster")], fmt.Sprint("s", rapid.IntRange(0, 5).Draw(t, "name")), uint16(rapid.IntRange(1, 3).Draw(t, "port")))
				if rapid.Bool().Draw(t, "delete") {
					store.Update(mesh.Delta{Deletes: []mesh.Key{o.Key()}})
				} else {
					store.Update(mesh.Delta{Upserts: []mesh.Object{o}})
				}
			case 2:
				step(l, store, p)
			case 3: // the stream is lost, perhaps with an update on its way
				if update, _ := l.next(); update != nil && rapid.Bool().Draw(t, "arrived") {
					p.take(update)
				}
				snapshot, _ = store.Latest()
				l = newLedger(owner, maps.Clone(p), snapshot)
			}
		}
		l.settle()
		for step(l, store, p) {
		}
		want := plane{"service/shop/other/west": {1}}
		snapshot, _ = store.Latest()
		for key, o := range snapshot.All() {
			if owner.Owns(key) {
				want[string(key)] = digestOf(o)
			}
		}
		if fmt.Sprint(p) != fmt.Sprint(want) {
			t.Fatalf("controller has %v, want %v", p, want)
		}
	})
}

func step(l *ledger, store *mesh.Store, p plane) bool {
	snapshot, _ := store.Latest()
	l.advance(snapshot)
	update, sent := l.next()
	if update == nil {
		return false
	}
	p.take(update)
	l.acknowledge(sent, nil)
	return true
}

func TestUnknownIsNotEmpty(t *testing.T) {
	l := newLedger(owner, plane{"service/shop/old/east": {1}}, mesh.Empty)
	if update, _ := l.next(); update != nil {
		t.Fatalf("deleted before the sources settled: %v", update)
	}
	l.settle()
	if update, _ := l.next(); len(update.GetDeletes()) != 1 {
		t.Fatalf("not deleted after they did: %v", update)
	}
}

func TestRefusedIsNotSentAgain(t *testing.T) {
	store := new(mesh.Store)
	snapshot := store.Update(mesh.Delta{Upserts: []mesh.Object{service("east", "a", 1)}})
	l := newLedger(owner, nil, snapshot)
	_, sent := l.next()
	l.acknowledge(sent, []*pb.Rejection{{Key: "service/shop/a/east", Reason: "no"}})
	l.advance(store.Update(mesh.Delta{Upserts: []mesh.Object{service("east", "a", 1)}}))
	if update, _ := l.next(); update != nil {
		t.Fatalf("sent again unchanged: %v", update)
	}
	l.advance(store.Update(mesh.Delta{Upserts: []mesh.Object{service("east", "a", 2)}}))
	if update, _ := l.next(); update == nil {
		t.Fatal("not sent though it changed")
	}
}

// The operator lets the cluster publish in one more namespace: what was refused goes up without having changed.
func TestRefusedIsSentAgainUnderAnotherRegistration(t *testing.T) {
	store := new(mesh.Store)
	cluster := mesh.Cluster{ID: "east", Namespaces: []string{"bank"}}
	snapshot := store.Update(mesh.Delta{Upserts: []mesh.Object{&cluster, service("east", "a", 1), service("east", "b", 1)}})
	l := newLedger(owner, nil, snapshot)
	_, sent := l.next()
	l.acknowledge(sent, []*pb.Rejection{{Key: "service/shop/a/east", Reason: "namespace"}})
	wider := cluster
	wider.Namespaces = []string{"bank", "shop"}
	l.advance(store.Update(mesh.Delta{Upserts: []mesh.Object{&wider}}))
	if update, _ := l.next(); len(update.GetUpserts()) != 1 || update.GetUpserts()[0].GetService().GetName().GetName() != "a" {
		t.Fatalf("sent %v, want a alone", update)
	}
}

// The SPIRE server may be away for longer than the sidecars take to come back: its bundle is unknown, and not gone.
func TestBundleIsNeverTakenBack(t *testing.T) {
	l := newLedger(owner, plane{"federation/east.test": {1}}, mesh.Empty)
	l.settle()
	if update, _ := l.next(); update != nil {
		t.Fatalf("deleted: %v", update)
	}
}

func TestLargeStateIsCut(t *testing.T) {
	store := new(mesh.Store)
	var d mesh.Delta
	for i := range maxUpdateObjects + 10 {
		d.Upserts = append(d.Upserts, service("east", fmt.Sprint("s", i), 1))
	}
	l := newLedger(owner, nil, store.Update(d))
	first, sent := l.next()
	l.acknowledge(sent, nil)
	second, _ := l.next()
	if len(first.GetUpserts()) > maxUpdateObjects || len(first.GetUpserts())+len(second.GetUpserts()) != maxUpdateObjects+10 {
		t.Errorf("%d and %d objects", len(first.GetUpserts()), len(second.GetUpserts()))
	}
}

// One changed object among 50 000: cost does not grow with what exists. 2-core cloud machine: about 40 us.
func BenchmarkLoneChange(b *testing.B) {
	store := new(mesh.Store)
	var d mesh.Delta
	for i := range 50_000 {
		d.Upserts = append(d.Upserts, service("east", fmt.Sprint("s", i), 1))
	}
	l := newLedger(owner, nil, store.Update(d))
	for {
		update, sent := l.next()
		if update == nil {
			break
		}
		l.acknowledge(sent, nil)
	}
	b.ResetTimer()
	for i := range b.N {
		l.advance(store.Update(mesh.Delta{Upserts: []mesh.Object{service("east", "s7", uint16(2+i%1000))}}))
		_, sent := l.next()
		l.acknowledge(sent, nil)
	}
}
