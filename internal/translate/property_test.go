package translate_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/shares"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
)

// Every endpoint is placed, counted behind gateways, or dropped: once. Everything has a reason.
func TestEveryEndpointOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := new(mesh.Store)
		snapshot := store.Update(translatetest.Start(t))
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			store.Update(translatetest.Delta(t))
			snapshot = store.Update(translatetest.Summaries(t))
		}
		v := translatetest.View(t, translatetest.AnyCluster(t))
		for name := range snapshot.ServiceNames() {
			a := translate.Assign(snapshot, v, translate.Request{Service: name, Port: 80, Subset: rapid.SampledFrom([]string{"", "v1"}).Draw(t, "subset")})
			endpoints := 0
			for slice := range snapshot.Endpoints(name) {
				endpoints += len(slice.Endpoints)
			}
			for summary := range snapshot.Summaries(name) {
				for _, bucket := range summary.Buckets {
					endpoints += int(bucket.Total)
				}
			}
			if got := accounted(t, a); got != endpoints {
				t.Fatalf("%s: %d accounted for of %d: %+v", name, got, endpoints, a)
			}
			checkLevels(t, a)
		}
	})
}

var wayInto = regexp.MustCompile(`healthy of (\d+) endpoints in (network \S+ of cluster [^;,]+)`)

func accounted(t *rapid.T, a translate.Assignment) int {
	behind := map[string]int{} // by network and cluster; an address may be the way to several
	n := 0
	for _, level := range a.Levels {
		for _, p := range level {
			if p.Reason == "" || p.Weight == 0 || p.LocalityWeight == 0 || p.StandsFor == 0 {
				t.Fatalf("incomplete: %+v", p)
			}
			if !p.Gateway {
				n++
			}
			sum := 0
			for _, way := range wayInto.FindAllStringSubmatch(p.Reason, -1) {
				count, _ := strconv.Atoi(way[1])
				behind[way[2]] = count
				sum += count
			}
			if p.Gateway && sum != int(p.StandsFor) {
				t.Fatalf("stands for %d: %s", p.StandsFor, p.Reason)
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
		n += count
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
	if spread := shares.Of(a); len(a.Levels) > 0 {
		var sum float64
		for _, level := range spread.Levels {
			sum += level
		}
		if sum < 0.999 || sum > 1.001 || slices.Min(spread.Levels) < 0 {
			t.Fatalf("shares %v", spread.Levels)
		}
	}
}

// Networks that are entered at one address make one entry, the same whether the endpoints behind it are known one by
// one, in whatever order, or by count.
func TestOneAddressIntoTwoNetworks(t *testing.T) {
	name := mesh.ServiceName{Namespace: "shop", Name: "catalog"}
	frame := []mesh.Object{
		&mesh.Cluster{ID: "a", State: mesh.ClusterActive, Networks: []mesh.NetworkRange{{Name: "n1"}}},
		&mesh.Cluster{ID: "b", State: mesh.ClusterActive, Networks: []mesh.NetworkRange{{Name: "n2"}, {Name: "n3"}}},
		&mesh.Service{Name: name, Cluster: "b", Exported: true, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}},
	}
	slice := &mesh.EndpointSlice{Service: name, Cluster: "b", Slice: "s"}
	for i, network := range []mesh.Network{"n3", "n2"} {
		frame = append(frame, &mesh.Gateway{
			Cluster: "b", Name: "gw-" + string(network), Network: network, Address: netip.MustParseAddr("192.168.0.1"), Port: 15443, Health: mesh.Healthy,
		})
		slice.Endpoints = append(slice.Endpoints, mesh.Endpoint{
			Name: "e" + string(network), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Ports: map[string]uint16{"http": 8080}, Network: network,
			Health: mesh.Healthy, Weight: 1, Identity: spiffeid.RequireFromString("spiffe://b.mesh/ns/shop/sa/catalog"),
		})
	}
	assign := func(known ...mesh.Object) translate.Assignment {
		s := new(mesh.Store).Update(mesh.Delta{Upserts: append(slices.Clip(frame), known...)})
		v := translate.View{Cluster: "a", Network: "n1", Namespace: "shop", Role: translate.Sidecar}
		return translate.Assign(s, v, translate.Request{Service: name, Port: 80})
	}
	one := assign(slice)
	var counts []mesh.Object
	for _, network := range []mesh.Network{"n2", "n3"} {
		for _, summary := range translate.Summarize([]*mesh.EndpointSlice{slice}, network) {
			counts = append(counts, summary)
		}
	}
	other := assign(counts...)
	if len(one.Levels) != 1 || len(one.Levels[0]) != 1 || one.Levels[0][0].StandsFor != 2 {
		t.Fatalf("%+v", one)
	}
	if a, b := fmt.Sprintf("%+v", one), fmt.Sprintf("%+v", other); a != b {
		t.Errorf("by endpoints %s\nby count     %s", a, b)
	}
}
