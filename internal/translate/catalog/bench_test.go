package catalog

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/xds"
)

var allTypes = map[xds.Type]bool{xds.Cluster: true, xds.Endpoints: true, xds.Listener: true, xds.Route: true}

// big is a mesh of one cluster with n services of 10 endpoints each.
func big(n int) *mesh.Store {
	store := new(mesh.Store)
	domain := spiffeid.RequireTrustDomainFromString("a.mesh")
	d := mesh.Delta{Upserts: []mesh.Object{&mesh.Cluster{
		ID: "a", Region: "eu", TrustDomain: domain, State: mesh.ClusterActive, Networks: []mesh.NetworkRange{{Name: "n1"}},
	}}}
	for i := range n {
		name := mesh.ServiceName{Namespace: "shop", Name: fmt.Sprintf("s%04d", i)}
		d.Upserts = append(d.Upserts, &mesh.Service{
			Name: name, Cluster: "a", Exported: true, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}},
		}, tenEndpoints(name, domain))
	}
	store.Update(d)
	return store
}

func tenEndpoints(name mesh.ServiceName, domain spiffeid.TrustDomain) *mesh.EndpointSlice {
	slice := &mesh.EndpointSlice{Service: name, Cluster: "a", Slice: "s"}
	for i := range 10 {
		slice.Endpoints = append(slice.Endpoints, mesh.Endpoint{
			Name: fmt.Sprint("e", i), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Ports: map[string]uint16{"http": 8080},
			Network: "n1", Locality: mesh.Locality{Region: "eu", Zone: fmt.Sprint(i % 3)}, Health: mesh.Healthy, Weight: 1,
			Identity: spiffeid.RequireFromSegments(domain, "ns", "shop", "sa", "x"),
		})
	}
	return slice
}

func toggled(s *mesh.Snapshot, i int) *mesh.EndpointSlice {
	name := mesh.ServiceName{Namespace: "shop", Name: "s0500"}
	object, _ := s.Get(mesh.EndpointsKey(name, "a", "s"))
	slice := *object.(*mesh.EndpointSlice)
	slice.Endpoints = append([]mesh.Endpoint(nil), slice.Endpoints...)
	slice.Endpoints[0].Health = []mesh.Health{mesh.Healthy, mesh.Unhealthy}[i%2]
	return &slice
}

var benchView = translate.View{Cluster: "a", Network: "n1", Locality: mesh.Locality{Region: "eu", Zone: "1"}, Namespace: "shop", Role: translate.Sidecar}

const benchName = "outbound|80||s0500.shop.svc.cluster.local"

// One EDS resource of 10 endpoints, marshalled.
func BenchmarkEDS(b *testing.B) {
	s, _ := big(1000).Latest()
	r, _ := benchView.ParseRequestName(benchName)
	b.ReportAllocs()
	for b.Loop() {
		xds.NewRawResource(xds.Endpoints, benchName, envoy.LoadAssignment(s, benchView, r))
	}
}

// One assignment of 10 endpoints.
func BenchmarkAssign(b *testing.B) {
	s, _ := big(1000).Latest()
	r, _ := benchView.ParseRequestName(benchName)
	b.ReportAllocs()
	for b.Loop() {
		translate.Assign(s, benchView, r)
	}
}

// One endpoint's health changes among 1 000 services: what changed, and its new resource. The commit is not counted.
func BenchmarkOneEndpointChange(b *testing.B) {
	store, catalog := big(1000), Of(benchView)
	at, _ := store.Latest()
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		b.StopTimer()
		now := store.Update(mesh.Delta{Upserts: []mesh.Object{toggled(at, i)}})
		b.StartTimer()
		for kind, name := range catalog.Changed(at, now) {
			catalog.Get(now, kind, name)
		}
		at = now
	}
}

// The same, without the resource.
func BenchmarkChanged(b *testing.B) {
	store, catalog := big(1000), Of(benchView)
	at, _ := store.Latest()
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		b.StopTimer()
		now := store.Update(mesh.Delta{Upserts: []mesh.Object{toggled(at, i)}})
		b.StartTimer()
		for range catalog.Changed(at, now) {
		}
		at = now
	}
}

// The same step asked by every further client that shares the view: what the first one found.
func BenchmarkChangedShared(b *testing.B) {
	store, catalog := big(1000), Of(benchView)
	at, _ := store.Latest()
	now := store.Update(mesh.Delta{Upserts: []mesh.Object{toggled(at, 1)}})
	b.ReportAllocs()
	for b.Loop() {
		for kind, name := range catalog.Changed(at, now) {
			catalog.Get(now, kind, name)
		}
	}
}

// Everything of 1 000 services from scratch.
func BenchmarkAll(b *testing.B) {
	store, catalog := big(1000), Of(benchView)
	for b.Loop() {
		b.StopTimer()
		s := store.Update(mesh.Delta{})
		b.StartTimer()
		for kind := range allTypes {
			for name := range catalog.Names(s, kind) {
				catalog.Get(s, kind, name)
			}
		}
	}
}

// A lone endpoint's change touches its EDS resource alone; a new identity touches the cluster's too.
func TestLoneEndpointChange(t *testing.T) {
	store, catalog := big(20), Of(benchView)
	at, _ := store.Latest()
	name := mesh.ServiceName{Namespace: "shop", Name: "s0007"}
	step := func(change func(*mesh.Endpoint)) string {
		object, _ := at.Get(mesh.EndpointsKey(name, "a", "s"))
		slice := *object.(*mesh.EndpointSlice)
		slice.Endpoints = append([]mesh.Endpoint(nil), slice.Endpoints...)
		change(&slice.Endpoints[3])
		now := store.Update(mesh.Delta{Upserts: []mesh.Object{&slice}})
		var got string
		for kind, name := range catalog.Changed(at, now) {
			got += string(kind[len("type.googleapis.com/envoy.config."):]) + " " + name + "\n"
		}
		at = now
		return got
	}
	const cluster = "cluster.v3.Cluster outbound|80||s0007.shop.svc.cluster.local\n"
	const endpoints = "endpoint.v3.ClusterLoadAssignment outbound|80||s0007.shop.svc.cluster.local\n"
	if got := step(func(e *mesh.Endpoint) { e.Health = mesh.Draining }); got != endpoints {
		t.Errorf("health: %s", got)
	}
	if got := step(func(e *mesh.Endpoint) { e.Identity = spiffeid.RequireFromString("spiffe://a.mesh/ns/shop/sa/new") }); got != cluster+endpoints {
		t.Errorf("identity: %s", got)
	}
}
