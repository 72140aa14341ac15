package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// draw makes a record out of a small world, so that records meet.
func draw(t *rapid.T) convert.Record {
	pick := func(what string, of ...string) string { return rapid.SampledFrom(of).Draw(t, what) }
	name := convert.Name{Namespace: pick("namespace", "shop", "shop", "shop", "barred"), Name: pick("name", "a", "b")}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return &convert.Service{Name: name, External: pick("type", "", "", "", "", "External") != "", Ports: []convert.Port{{Name: pick("port", "http", "http", "http", ""), Number: 80, Protocol: "TCP"}}}
	case 1:
		return &convert.Pod{
			Name: name, Node: pick("node", "", "a", "b"), Account: pick("account", "", "x"), Sidecar: rapid.Bool().Draw(t, "sidecar"),
			Labels: map[string]string{"version": pick("label", "v1", "v2")},
		}
	case 2:
		return &convert.Node{Name: pick("node", "a", "b"), Zone: pick("zone", "", "z1", "z2")}
	case 3:
		return &convert.Export{Name: name}
	}
	slice := &convert.Slice{
		Name: name, Service: pick("service", "a", "b"), Family: convert.Family(pick("family", "IPv4", "IPv4", "IPv4", "IPv6")),
		Ports: map[string]uint16{pick("port", "http", "http", "http", ""): uint16(rapid.IntRange(1, 2).Draw(t, "number"))},
	}
	for range rapid.IntRange(1, 3).Draw(t, "endpoints") {
		slice.Endpoints = append(slice.Endpoints, convert.Endpoint{
			Address: netip.MustParseAddr(pick("address", "10.1.0.1", "10.1.0.2", "10.2.0.1", "fd00::1")), Pod: pick("pod", "", "a", "b"),
			Node: pick("node", "", "a"), Ready: rapid.Bool().Draw(t, "ready"), Terminating: rapid.Bool().Draw(t, "terminating"),
		})
	}
	return slice
}

func drawAnnounced(t *rapid.T) *mesh.EndpointSlice {
	name := rapid.SampledFrom([]string{"a", "sidecar"}).Draw(t, "announced")
	return &mesh.EndpointSlice{
		Service: mesh.ServiceName{Namespace: "shop", Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of")}, Cluster: "east", Slice: name,
		Endpoints: []mesh.Endpoint{{
			Name: name, Address: netip.MustParseAddr(rapid.SampledFrom([]string{"10.1.0.1", "10.1.0.2"}).Draw(t, "at")), Network: "east", Weight: 1,
			Ports: map[string]uint16{"http": 15006}, Health: rapid.SampledFrom([]mesh.Health{mesh.Healthy, mesh.Unhealthy, mesh.Draining}).Draw(t, "health"),
			Locality: mesh.Locality{Region: "eu"},
		}},
	}
}

func testEngine(t testing.TB) *engine {
	return newEngine(newMetrics(prometheus.NewRegistry()))
}

// Whatever comes in which order, and however it is gathered: what was told is what the records mean from scratch.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := testEngine(t)
		cluster := testCluster()
		cluster.Namespaces = []string{"shop"}
		records := map[string]convert.Record{}
		id := func(r convert.Record) string { return fmt.Sprintf("%T %s", r, r.Of()) }
		for _, k := range append(kinds(), kind{name: exportResource, record: &convert.Export{}}) {
			e.replace(k.name, k.record, nil)
		}
		told := map[mesh.Key]mesh.Object{}
		layer := new(mesh.Store)
		seen := mesh.Empty
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "action") {
			case 0:
				r := draw(rt)
				delete(records, id(r))
				e.delete(r)
			case 1: // a whole list anew
				first := draw(rt)
				maps.DeleteFunc(records, func(_ string, r convert.Record) bool { return fmt.Sprintf("%T", r) == fmt.Sprintf("%T", first) })
				records[id(first)] = first
				e.replace("again", first, []convert.Record{first})
			case 2:
				slice := drawAnnounced(rt)
				if rapid.Bool().Draw(rt, "gone") {
					layer.Update(mesh.Delta{Deletes: []mesh.Key{slice.Key()}})
				} else {
					layer.Update(mesh.Delta{Upserts: []mesh.Object{slice}})
				}
			default:
				r := draw(rt)
				records[id(r)] = r
				e.set(r)
			}
			if rapid.Bool().Draw(rt, "wait") {
				continue
			}
			seen = stepOnce(rt, e, cluster, layer, seen, told)
			compareScratch(rt, cluster, layer, records, told)
		}
	})
}

func stepOnce(t *rapid.T, e *engine, cluster *mesh.Cluster, layer *mesh.Store, seen *mesh.Snapshot, told map[mesh.Key]mesh.Object) *mesh.Snapshot {
	now, _ := layer.Latest()
	services := map[mesh.ServiceName]bool{}
	for key := range mesh.Diff(seen, now) {
		service, _, _ := key.Service()
		services[service] = true
	}
	e.markServices(services, false)
	d, _, ok := e.step(convert.Environment{Cluster: cluster, Announced: announcedOf(now)})
	if !ok {
		t.Fatal("all was listed")
	}
	for _, key := range d.Deletes {
		if told[key] == nil {
			t.Fatalf("%s was taken back and never told", key)
		}
		delete(told, key)
	}
	for _, object := range d.Upserts {
		told[object.Key()] = object
	}
	return now
}

func compareScratch(t *rapid.T, cluster *mesh.Cluster, layer *mesh.Store, records map[string]convert.Record, told map[mesh.Key]mesh.Object) {
	var scratch convert.State
	for _, r := range records {
		scratch.Set(r)
	}
	now, _ := layer.Latest()
	want := map[mesh.Key]mesh.Object{}
	for _, name := range scratch.All() {
		for _, object := range scratch.Convert(convert.Environment{Cluster: cluster, Announced: announcedOf(now)}, name).Objects {
			want[object.Key()] = object
		}
	}
	if got, want := slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
		t.Fatalf("told %v, want %v", got, want)
	}
	for key, object := range want {
		if !same(object, told[key]) {
			t.Fatalf("%s is\n%+v, want\n%+v", key, told[key], object)
		}
		if err := object.Validate(); err != nil {
			t.Fatal(err)
		}
	}
}

// Nothing is told before everything was listed once; then everything that there is.
func TestNothingBeforeAllIsListed(t *testing.T) {
	e := testEngine(t)
	env := convert.Environment{Cluster: testCluster()}
	all := append(kinds(), kind{name: exportResource, record: &convert.Export{}})
	if len(all) != resources {
		t.Fatalf("%d kinds, %d are waited for", len(all), resources)
	}
	service := &convert.Service{Name: convert.Name{Namespace: "shop", Name: "a"}, Ports: []convert.Port{{Number: 80, Protocol: "TCP"}}}
	for _, k := range all {
		if _, _, ok := e.step(env); ok {
			t.Errorf("told before %s were listed", k.name)
		}
		if k.name == "services" {
			e.replace(k.name, k.record, []convert.Record{service})
			continue
		}
		e.replace(k.name, k.record, nil)
	}
	if d, _, ok := e.step(env); !ok || len(d.Upserts) != 1 {
		t.Errorf("%v, %v", d, ok)
	}
	if d, _, ok := e.step(env); !ok || len(d.Upserts)+len(d.Deletes) != 0 {
		t.Errorf("without a change: %v, %v", d, ok)
	}
}

// A list that says what was known already changes nothing.
func TestTheSameListIsNoChange(t *testing.T) {
	e := testEngine(t)
	list := func() []convert.Record {
		return []convert.Record{&convert.Pod{Name: convert.Name{Namespace: "shop", Name: "a"}, Labels: map[string]string{"x": "y"}}}
	}
	e.replace("pods", &convert.Pod{}, list())
	clear(e.dirty)
	e.replace("pods", &convert.Pod{}, list())
	if len(e.dirty) > 0 {
		t.Errorf("dirty: %v", e.dirty)
	}
}

// 50 000 endpoints in 5 000 Services, all looked at; 2-core cloud machine: see docs/performance.md.
func BenchmarkConvertAll(b *testing.B) {
	var state convert.State
	for s := range 5_000 {
		name := convert.Name{Namespace: "shop", Name: fmt.Sprintf("s%d", s)}
		state.Set(&convert.Service{Name: name, Ports: []convert.Port{{Name: "http", Number: 80, Protocol: "TCP"}}})
		slice := &convert.Slice{Name: name, Service: name.Name, Family: convert.IPv4, Ports: map[string]uint16{"http": 8080}}
		for i := range 10 {
			pod := convert.Name{Namespace: "shop", Name: fmt.Sprintf("s%d-%d", s, i)}
			state.Set(&convert.Pod{Name: pod, Sidecar: true, Labels: map[string]string{"app": name.Name}})
			slice.Endpoints = append(slice.Endpoints, convert.Endpoint{Address: netip.AddrFrom4([4]byte{10, 1, byte(s), byte(i)}), Pod: pod.Name, Ready: true})
		}
		state.Set(slice)
	}
	env := convert.Environment{Cluster: testCluster()}
	names := state.All()
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range names {
			state.Convert(env, name)
		}
	}
}
