package etcd

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

const grace = 10 * time.Second

var (
	cluster = &mesh.Cluster{
		ID: "east", Region: "eu-west", TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), State: mesh.ClusterActive, Namespaces: []string{"shop"},
		Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
	}
	catalog = mesh.ServiceName{Namespace: "shop", Name: "catalog"}
	start   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func serviceValue(name string, port int, exported bool) string {
	return fmt.Sprintf("apiVersion: periplus.io/v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\nspec: {exported: %t, ports: [{name: http, port: %d, protocol: http}]}\n", name, exported, port)
}

func workloadValue(service, name, address, health string) string {
	return fmt.Sprintf("apiVersion: periplus.io/v1\nkind: Endpoints\nmetadata: {name: %s, namespace: shop}\nspec: {endpoints: [{name: %s, address: %s, ports: {http: 8080}, health: %s}]}\n", service, name, address, health)
}

func both(service, workload string) string { return service + "---\n" + workload }

type world struct {
	*testing.T
	r      *registry
	now    time.Time
	leases map[int64]bool // ours
	layer  map[mesh.Key]mesh.Object
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, now: start, leases: map[int64]bool{}, layer: map[mesh.Key]mesh.Object{}}
	w.r = newRegistry(cluster, grace, func(lease int64) bool { return w.leases[lease] })
	return w
}

// after lets time pass and applies what changed.
func (w *world) after(d time.Duration) {
	w.now = w.now.Add(d)
	w.r.tick(w.now)
	w.commit()
}

func (w *world) commit() {
	w.r.assess()
	d := w.r.commit()
	for _, key := range d.Deletes {
		delete(w.layer, key)
	}
	for _, object := range d.Upserts {
		w.layer[object.Key()] = object
	}
}

func (w *world) add(name string) {
	w.Helper()
	path := "endpoints/shop/catalog/" + name
	if e := w.r.put(path, []byte(both(serviceValue("catalog", 80, false), workloadValue("catalog", name, "10.0.0.1", "healthy"))), 7); e != nil {
		w.Fatal(e.reason)
	}
	w.commit()
}

// want compares the workloads' health; "" is: not there.
func (w *world) want(what string, health map[string]mesh.Health) {
	w.Helper()
	n := 0
	for name, want := range health {
		object := w.layer[mesh.EndpointsKey(catalog, "east", name)]
		got := mesh.Health("")
		if object != nil {
			got = object.(*mesh.EndpointSlice).Endpoints[0].Health
			n++
		}
		if got != want {
			w.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
	if have := len(w.layer) - services(w.layer); have != n {
		w.Errorf("%s: %d slices, want %d", what, have, n)
	}
}

func services(layer map[mesh.Key]mesh.Object) (n int) {
	for key := range layer {
		if key.Kind() == mesh.KindService {
			n++
		}
	}
	return n
}

func (w *world) deleted(name string) {
	w.r.deleted("endpoints/shop/catalog/"+name, w.now)
	w.commit()
}

func TestExpiredLeaseIsUnhealthyThenGone(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	w.add("b")
	w.deleted("a")
	w.want("ended", map[string]mesh.Health{"a": mesh.Unhealthy, "b": mesh.Healthy})
	w.after(grace - time.Second)
	w.want("grace", map[string]mesh.Health{"a": mesh.Unhealthy, "b": mesh.Healthy})
	w.after(time.Second)
	w.want("gone", map[string]mesh.Health{"a": "", "b": mesh.Healthy})
	w.add("a")
	w.deleted("a")
	w.add("a")
	w.want("came back", map[string]mesh.Health{"a": mesh.Healthy, "b": mesh.Healthy})
	w.after(time.Hour)
	w.want("stays", map[string]mesh.Health{"a": mesh.Healthy, "b": mesh.Healthy})
}

func TestToldEndIsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	w.add("b")
	w.r.put("endpoints/shop/catalog/a", []byte(workloadValue("catalog", "a", "10.0.0.1", "draining")), 7)
	w.deleted("a")
	w.want("draining", map[string]mesh.Health{"a": "", "b": mesh.Healthy})
	w.r.put("endpoints/shop/catalog/b", w.r.entries["endpoints/shop/catalog/b"].value, 0)
	w.deleted("b")
	w.want("without a lease", map[string]mesh.Health{"a": "", "b": ""})
	if len(w.layer) != 0 {
		t.Errorf("left over: %v", w.layer)
	}
}

func TestMassExpiryIsHeld(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		w.add(name)
	}
	w.deleted("a")
	w.deleted("b")
	w.want("half", map[string]mesh.Health{"a": mesh.Unhealthy, "b": mesh.Unhealthy, "c": mesh.Healthy, "d": mesh.Healthy})
	w.after(time.Second)
	w.deleted("c")
	held := map[string]mesh.Health{"a": mesh.Healthy, "b": mesh.Healthy, "c": mesh.Healthy, "d": mesh.Healthy}
	w.want("most", held)
	w.add("a") // comes back
	w.after(2 * grace)
	w.want("held", held)
	w.after(grace)
	w.want("never came back", map[string]mesh.Health{"a": mesh.Healthy, "b": "", "c": "", "d": mesh.Healthy})
}

func TestEmptyListIsEtcdsLoss(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	w.r.put("services/shop/catalog", []byte(serviceValue("catalog", 81, true)), 0)
	w.commit()
	w.r.listed(nil, w.now)
	w.commit()
	w.want("held", map[string]mesh.Health{"a": mesh.Healthy})
	if s := w.layer[mesh.ServiceKey(catalog, "east")].(*mesh.Service); !s.Exported || s.Ports[0].Port != 81 {
		t.Errorf("service %+v", s)
	}
	w.after(3 * grace)
	if len(w.layer) != 0 {
		t.Errorf("after the hold: %v", w.layer)
	}
}

// A list after an outage starts the time of what is lost anew: nobody could come back meanwhile.
func TestOutageCountsForNothing(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	w.add("b")
	w.deleted("a")
	w.now = w.now.Add(time.Hour)
	w.r.listed(map[string]bool{"endpoints/shop/catalog/b": true}, w.now)
	w.after(grace - time.Second)
	w.want("had no time yet", map[string]mesh.Health{"a": mesh.Unhealthy, "b": mesh.Healthy})
}

func TestRestoredIsLostOnlyByAList(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.add(name)
	}
	restarted := newWorld(t)
	restarted.r.restore(w.r.objects())
	restarted.layer = w.layer
	restarted.after(time.Hour)
	restarted.want("no list yet", map[string]mesh.Health{"a": mesh.Healthy, "b": mesh.Healthy, "c": mesh.Healthy})
	restarted.add("a")
	restarted.r.put("sidecars/shop/catalog/b", w.r.entries["endpoints/shop/catalog/b"].value, 9) // was a sidecar's all along
	restarted.r.listed(map[string]bool{"endpoints/shop/catalog/a": true, "sidecars/shop/catalog/b": true}, restarted.now)
	restarted.commit()
	restarted.want("listed", map[string]mesh.Health{"a": mesh.Healthy, "b": mesh.Healthy, "c": mesh.Unhealthy})
	restarted.after(grace)
	restarted.want("gone", map[string]mesh.Health{"a": mesh.Healthy, "b": mesh.Healthy, "c": ""})
}

// What the agent wrote itself does not come back, and its end says nothing.
func TestOursIsNotRead(t *testing.T) {
	w := newWorld(t)
	value := []byte(both(serviceValue("catalog", 80, false), workloadValue("catalog", "a", "10.0.0.1", "healthy")))
	w.r.put("sidecars/shop/catalog/a", value, 5)
	w.commit()
	w.want("another agent's", map[string]mesh.Health{"a": mesh.Healthy})
	w.leases[6] = true
	w.r.put("sidecars/shop/catalog/a", value, 6)
	w.commit()
	w.r.deleted("sidecars/shop/catalog/a", w.now)
	w.commit()
	if len(w.layer) != 0 {
		t.Errorf("our own came back: %v", w.layer)
	}
}

// The workload's own record comes before its sidecar's, the definition before what workloads say.
func TestWhoIsRight(t *testing.T) {
	w := newWorld(t)
	w.r.put("sidecars/shop/catalog/a", []byte(both(serviceValue("catalog", 80, false), workloadValue("catalog", "a", "10.0.0.2", "healthy"))), 5)
	w.r.put("endpoints/shop/catalog/a", []byte(both(serviceValue("catalog", 81, true), workloadValue("catalog", "a", "10.0.0.1", "healthy"))), 7)
	w.commit()
	slice := w.layer[mesh.EndpointsKey(catalog, "east", "a")].(*mesh.EndpointSlice)
	service := w.layer[mesh.ServiceKey(catalog, "east")].(*mesh.Service)
	if slice.Endpoints[0].Address.String() != "10.0.0.1" || len(service.Ports) != 1 || service.Ports[0].Port != 81 || !service.Exported {
		t.Errorf("%+v %+v", slice, service)
	}
	w.r.put("services/shop/catalog", []byte(serviceValue("catalog", 82, false)), 0)
	w.deleted("a")
	slice = w.layer[mesh.EndpointsKey(catalog, "east", "a")].(*mesh.EndpointSlice)
	service = w.layer[mesh.ServiceKey(catalog, "east")].(*mesh.Service)
	if slice.Endpoints[0].Address.String() != "10.0.0.2" || service.Ports[0].Port != 82 || service.Exported {
		t.Errorf("%+v %+v", slice, service)
	}
}

func TestRefused(t *testing.T) {
	good := workloadValue("catalog", "a", "10.0.0.1", "healthy")
	for name, c := range map[string]struct{ path, value, want string }{
		"no folder":         {"foo/shop/catalog", good, `folder "foo" is none of`},
		"too short":         {"endpoints/shop/catalog", good, "want services/NAMESPACE/NAME or endpoints/"},
		"too long":          {"services/shop/catalog/a", good, "want services/NAMESPACE/NAME"},
		"underscore":        {"endpoints/shop/catalog/_file", good, "underscore"},
		"dotted namespace":  {"endpoints/shop.svc/catalog/a", good, "is not a name"},
		"other service":     {"endpoints/shop/cart/a", good, `its key is of "cart.shop"`},
		"other workload":    {"endpoints/shop/catalog/b", good, `with the key's name "b"`},
		"foreign address":   {"endpoints/shop/catalog/a", workloadValue("catalog", "a", "192.168.0.1", "healthy"), "outside the CIDRs"},
		"foreign namespace": {"endpoints/bank/catalog/a", "apiVersion: periplus.io/v1\nkind: Endpoints\nmetadata: {name: catalog, namespace: bank}\nspec: {endpoints: []}\n", "may not publish"},
		"half":              {"endpoints/shop/catalog/a", good[:40], "Endpoin"},
		"empty":             {"endpoints/shop/catalog/a", "", "want a document of kind Endpoints"},
		"service only":      {"endpoints/shop/catalog/a", serviceValue("catalog", 80, false), "want a document of kind Endpoints"},
		"not a service":     {"services/shop/catalog", good, "do not belong"},
		"too large":         {"endpoints/shop/catalog/a", string(make([]byte, maxValue+1)), "at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.add("other")
			e := w.r.put(c.path, []byte(c.value), 7)
			if e == nil || !strings.Contains(e.reason, c.want) {
				t.Fatalf("got %+v, want %s", e, c.want)
			}
			w.commit()
			w.want("the rest applies", map[string]mesh.Health{"other": mesh.Healthy})
		})
	}
}

// A bad value leaves the last good one of its key in force, until the key goes or is good again.
func TestLastGoodStays(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	w.r.put("endpoints/shop/catalog/a", []byte("kind: nonsense"), 7)
	w.commit()
	w.want("bad", map[string]mesh.Health{"a": mesh.Healthy})
	w.deleted("a")
	w.want("lease ended", map[string]mesh.Health{"a": mesh.Unhealthy})
	w.add("a")
	w.want("good again", map[string]mesh.Health{"a": mesh.Healthy})
}

// A cluster that is registered otherwise admits other things.
func TestRegistrationChanges(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	narrow := *cluster
	narrow.Networks = []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}}
	if refused := w.r.register(&narrow); len(refused) != 1 {
		t.Errorf("refused %v", refused)
	}
	w.commit()
	w.want("not admitted", map[string]mesh.Health{"a": ""})
	w.r.register(cluster)
	w.commit()
	w.want("admitted again", map[string]mesh.Health{"a": mesh.Healthy})
}

// Whatever happened in whatever order, the layer is what a reader makes of etcd who comes fresh (and to whom a bad
// value is the good one before it).
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{now: start, leases: map[int64]bool{}, layer: map[mesh.Key]mesh.Object{}}
		w.r = newRegistry(cluster, grace, func(lease int64) bool { return lease == 6 })
		truth := map[string]string{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			step(t, w, truth)
		}
		w.r.listed(keys(truth), w.now)
		w.after(3 * grace) // what is lost is gone
		fresh := newRegistry(cluster, grace, func(int64) bool { return false })
		for path, value := range truth {
			fresh.put(path, []byte(value), 7)
		}
		fresh.commit()
		if len(w.layer) != len(fresh.emitted) || len(w.r.emitted) != len(fresh.emitted) {
			t.Fatalf("%d objects, from scratch %d: %v", len(w.layer), len(fresh.emitted), truth)
		}
		for key, object := range fresh.emitted {
			if got := w.layer[key]; got == nil || meshpb.Digest(got) != meshpb.Digest(object) {
				t.Fatalf("%s is %+v, from scratch %+v", key, got, object)
			}
		}
	})
}

func step(t *rapid.T, w *world, truth map[string]string) {
	service := rapid.SampledFrom([]string{"catalog", "cart"}).Draw(t, "service")
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "workload")
	folder := rapid.SampledFrom([]string{"services", "endpoints", "sidecars"}).Draw(t, "folder")
	path, port := folder+"/shop/"+service, rapid.IntRange(80, 81).Draw(t, "port")
	value := serviceValue(service, port, port == 80)
	if folder != "services" {
		path += "/" + name
		value = workloadValue(service, name, fmt.Sprintf("10.0.0.%d", port), rapid.SampledFrom([]string{"healthy", "draining"}).Draw(t, "health"))
		if rapid.Bool().Draw(t, "declares") {
			value = both(serviceValue(service, port, port == 81), value)
		}
	}
	switch rapid.IntRange(0, 6).Draw(t, "what") {
	case 0, 1, 2:
		w.r.put(path, []byte(value), rapid.SampledFrom([]int64{0, 7}).Draw(t, "lease"))
		truth[path] = value
	case 3:
		if _, there := truth[path]; there {
			w.r.put(path, []byte("bad"), 7)
		}
	case 4:
		w.r.put(path, []byte(value), 6)
		delete(truth, path)
	case 5:
		w.r.deleted(path, w.now)
		delete(truth, path)
	case 6:
		w.r.listed(keys(truth), w.now)
	}
	w.after(time.Duration(rapid.IntRange(0, 12).Draw(t, "seconds")) * time.Second)
}

func keys(truth map[string]string) map[string]bool {
	out := map[string]bool{}
	for path := range truth {
		out[path] = true
	}
	return out
}

// A health is changed without filling in what the registration is to say.
func TestWithHealth(t *testing.T) {
	value, err := WithHealth([]byte(both(serviceValue("catalog", 80, true), workloadValue("catalog", "a", "10.0.0.1", "healthy"))), mesh.Draining)
	if err != nil || strings.Contains(string(value), "network") || strings.Contains(string(value), "eu-west") {
		t.Fatalf("%v\n%s", err, value)
	}
	w := newWorld(t)
	if e := w.r.put("endpoints/shop/catalog/a", value, 7); e != nil {
		t.Fatal(e.reason)
	}
	w.commit()
	w.want("written", map[string]mesh.Health{"a": mesh.Draining})
	if s := w.layer[mesh.ServiceKey(catalog, "east")].(*mesh.Service); !s.Exported {
		t.Errorf("service %+v", s)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("endpoints/shop/catalog/a", []byte(both(serviceValue("catalog", 80, true), workloadValue("catalog", "a", "10.0.0.1", "healthy"))))
	f.Add("services/shop/catalog", []byte(serviceValue("catalog", 80, true)))
	f.Add("sidecars/shop/catalog/a", []byte(`{"apiVersion":"periplus.io/v1","kind":"Endpoints","metadata":{"name":"catalog","namespace":"shop"},"spec":{"endpoints":[{"name":"a","address":"10.0.0.1","ports":{"http":1}}]}}`))
	f.Add("services//", []byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		name, err := ParseName(path)
		if err != nil {
			return
		}
		if name.Path() != path {
			t.Fatalf("%q was read as %q", path, name.Path())
		}
		record, err := ParseRecord(name, value, cluster)
		if err != nil {
			return
		}
		text, err := record.Format()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRecord(name, text, cluster)
		if err != nil || again.Slice != nil && meshpb.Digest(again.Slice) != meshpb.Digest(record.Slice) || again.Service != nil && meshpb.Digest(again.Service) != meshpb.Digest(record.Service) {
			t.Fatalf("%v: %+v was written as\n%s", err, record, text)
		}
	})
}
