package clusteragent

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// The whole life: register, serve, report, lose controllers, restart from disk, serve a new sidecar.
func TestAgentLivesWithoutControllers(t *testing.T) {
	plane := newController(t, east(), west()...)
	f := newFixture(t, plane)
	f.start()
	f.ready()
	plane.has(mesh.ServiceKey(catalog, "east"), func(o mesh.Object) bool { return o.(*mesh.Service).Exported })

	connection := f.sidecar(f.workload())
	if _, response, err := f.announce(connection, announcement("c-1")); err != nil || len(response.GetRejections()) > 0 || len(response.GetKeys()) != 1 {
		t.Fatalf("announce: %v %v", response, err)
	}
	key := mesh.EndpointsKey(catalog, "east", "c-1")
	plane.has(key, health(mesh.Healthy))
	eventually(t, "state is on disk", func() bool {
		data, _ := os.ReadFile(filepath.Join(f.dir, "state.1"))
		return strings.Contains(string(data), "c-1")
	})
	eventually(t, "feed is on disk", func() bool {
		data, _ := os.ReadFile(filepath.Join(f.dir, "feed", "resources"))
		return strings.Contains(string(data), "inventory")
	})

	plane.stop()
	f.stop()
	f.token = "" // not needed any more
	f.grace = 3 * time.Second
	f.start()
	f.ready()
	names, err := f.clusters(f.sidecar(f.workload()))
	if all := fmt.Sprint(names); err != nil || !strings.Contains(all, "catalog.shop") || !strings.Contains(all, "inventory.shop") {
		t.Fatalf("a new sidecar got %v, %v", names, err)
	}
	if code, body := f.get("/debug/endpointz"); code != 200 || !strings.Contains(body, `"Health": "healthy"`) {
		t.Fatalf("the endpoint did not keep its health over the restart: %s", body)
	}

	before := plane.reported()
	plane.start()
	eventually(t, "agent reports again", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, `"controller": "127`) })
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	f.write(services + "---\n" + strings.ReplaceAll(services, "catalog", "extra"))
	plane.has(mesh.ServiceKey(mesh.ServiceName{Namespace: "shop", Name: "extra"}, "east"), always)
	plane.mu.Lock()
	defer plane.mu.Unlock()
	for _, u := range plane.updates[before:] {
		for _, o := range u.GetUpserts() {
			if o.GetService().GetName().GetName() != "extra" {
				t.Errorf("sent again though unchanged: %v", o)
			}
		}
		if len(u.GetDeletes()) > 0 {
			t.Errorf("deleted: %v", u.GetDeletes())
		}
	}
}

func TestLostStreamAndDrain(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	key := mesh.EndpointsKey(catalog, "east", "c-1")

	killed := f.sidecar(f.workload())
	if _, _, err := f.announce(killed, announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	plane.has(key, health(mesh.Healthy))
	lost := time.Now()
	killed.Close()
	plane.has(key, health(mesh.Unhealthy))
	if took := time.Since(lost); took > time.Second {
		t.Errorf("unhealthy after %s, want within a second", took)
	}
	plane.has(key, nil)
	if took := time.Since(lost); took < f.grace {
		t.Errorf("removed after %s, want not before %s", took, f.grace)
	}

	draining := f.sidecar(f.workload())
	stream, _, err := f.announce(draining, announcement("c-1"))
	if err != nil {
		t.Fatal(err)
	}
	request := announcement("c-1")
	request.Health = pb.Health_HEALTH_DRAINING
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	plane.has(key, health(mesh.Draining))
	left := time.Now()
	stream.CloseSend()
	plane.has(key, nil)
	if took := time.Since(left); took > f.grace {
		t.Errorf("drained endpoint removed after %s, want at once", took)
	}
}

func TestAnnouncementsAreConfined(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		path   string
		change func(*pb.AnnounceRequest)
		want   string
	}{
		{"name of another identity", "/ns/shop/sa/thief", func(*pb.AnnounceRequest) {}, "is held by"},
		{"address outside", "/ns/shop/sa/catalog", func(r *pb.AnnounceRequest) { r.Name, r.Address = "c-2", "10.1.2.3" }, "outside the CIDRs"},
		{"foreign network", "/ns/shop/sa/catalog", func(r *pb.AnnounceRequest) { r.Name, r.Network = "c-2", "n2" }, "is not one of cluster"},
		{"gateway without its identity", "/ns/shop/sa/catalog", func(r *pb.AnnounceRequest) { r.Name, r.Gateway = "c-2", &pb.AnnouncedGateway{Port: 1} }, "is not the gateways'"},
		{"reserved name", "/ns/shop/sa/catalog", func(r *pb.AnnounceRequest) { r.Name = "_file" }, "underscore"},
		{"not a workload", "/periplus/agent", func(r *pb.AnnounceRequest) { r.Name = "c-2" }, "not a workload"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			request := announcement("c-1")
			c.change(request)
			_, _, err := f.announce(f.sidecar(f.ca.Source(c.path, time.Hour)), request)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	request := announcement("c-3")
	request.Services = append(request.Services, &pb.AnnouncedService{Name: "vault.bank", Ports: request.Services[0].Ports})
	_, response, err := f.announce(f.sidecar(f.workload()), request)
	if err != nil || len(response.GetKeys()) != 1 || len(response.GetRejections()) != 1 || !strings.Contains(response.GetRejections()[0].GetReason(), "namespace") {
		t.Errorf("a service of another namespace: %v %v", response, err)
	}
	foreign := trusttest.NewCA("west.test").Source("/ns/shop/sa/catalog", time.Hour, f.ca)
	if _, _, err := f.announce(f.sidecar(foreign), announcement("c-4")); err == nil {
		t.Error("a sidecar of another trust domain was let in")
	}
	if _, err := f.clusters(f.sidecar(foreign)); err == nil {
		t.Error("a proxy of another trust domain was served")
	}
}

func TestNewestStreamOfOneIdentityWins(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	first, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the older stream: %v, want aborted", err)
	}
	plane.has(mesh.EndpointsKey(catalog, "east", "c-1"), health(mesh.Healthy))
}

func TestRejectedAndForgedObjects(t *testing.T) {
	plane := newController(t, east(), west()...)
	key := mesh.EndpointsKey(catalog, "east", "c-1")
	plane.refuse[string(key)] = "outside the networks"
	f := newFixture(t, plane)
	f.start()
	f.ready()
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "rejection is shown", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, "outside the networks") })
	plane.has(mesh.ServiceKey(catalog, "east"), always) // the rest was applied

	forged := &mesh.EndpointSlice{Service: catalog, Cluster: "east", Slice: "forged", Endpoints: []mesh.Endpoint{{
		Name: "x", Address: netip.MustParseAddr("127.0.0.9"), Ports: map[string]uint16{"http": 1}, Network: "n1", Health: mesh.Healthy, Weight: 1,
	}}}
	good := &mesh.Gateway{Cluster: "west", Name: "gw2", Network: "n2", Address: netip.MustParseAddr("10.0.0.2"), Port: 1, Health: mesh.Healthy}
	plane.store.Update(mesh.Delta{Upserts: []mesh.Object{forged, good}})
	eventually(t, "the good one is applied", func() bool { _, body := f.get("/debug/configz"); return strings.Contains(body, "gateway/west/gw2") })
	if _, body := f.get("/debug/configz"); strings.Contains(body, string(forged.Key())) {
		t.Error("a controller wrote into the own cluster")
	}
	// The state is there first, what is said about it a moment later.
	eventually(t, "the forged object is named", func() bool {
		_, body := f.get("/debug/syncz")
		return strings.Contains(body, "only the agent of cluster")
	})
}

func TestBadServicesFileKeepsTheLastGood(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	plane.has(mesh.ServiceKey(catalog, "east"), always)
	f.write(strings.ReplaceAll(services, "exported", "exportet"))
	eventually(t, "error is shown", func() bool {
		_, body := f.get("/debug/syncz")
		return strings.Contains(body, "spec.exportet is not known")
	})
	if _, body := f.get("/metrics"); !strings.Contains(body, "periplus_agent_services_file_bad 1") {
		t.Error("metric does not tell")
	}
	plane.has(mesh.ServiceKey(catalog, "east"), always)
}

func TestCredentialRotates(t *testing.T) {
	plane := newController(t, east())
	plane.ttl = 4 * time.Second
	f := newFixture(t, plane)
	f.start()
	f.ready()
	eventually(t, "rotation at half life", func() bool { plane.mu.Lock(); defer plane.mu.Unlock(); return plane.rotations > 0 })
	plane.mu.Lock()
	plane.ttl, plane.generation = time.Hour, 3
	changed := *plane.cluster
	changed.CredentialGeneration = 3
	plane.cluster = &changed
	plane.mu.Unlock()
	plane.store.Update(mesh.Delta{Upserts: []mesh.Object{&changed}})
	eventually(t, "rotation to the new generation", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, `"generation": 3`) })
	if info, err := os.Stat(filepath.Join(f.dir, "credential.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("credential file: %v %v", info, err)
	}
}

// The feed tells a change of the registration once. A welcome that is older, by a replica that lags or on a slow
// link, does not undo it.
func TestLateWelcomeChangesNothing(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	drained := east()
	drained.State = mesh.ClusterDrained
	plane.store.Update(mesh.Delta{Upserts: []mesh.Object{drained}}) // welcomes still say active
	isDrained := func() bool { _, body := f.get("/debug/configz"); return strings.Contains(body, "DRAINED") }
	eventually(t, "the feed drains", isDrained)
	plane.stop()
	plane.start()
	eventually(t, "agent reports again", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, `"epoch": 2`) })
	if !isDrained() {
		t.Error("a welcome undid what the feed told")
	}
}

func TestTokens(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	f.stop()
	t.Run("used, with a good credential", func(t *testing.T) {
		f.start()
		f.ready()
		f.stop()
	})
	t.Run("used, in another folder", func(t *testing.T) {
		other := newFixture(t, plane)
		other.token = f.token
		other.start()
		if err := <-other.done; err == nil || !strings.Contains(err.Error(), "used already") {
			t.Errorf("got %v", err)
		}
		other.cancel()
		other.cancel = nil
	})
	t.Run("of another control plane", func(t *testing.T) {
		stranger := newController(t, east())
		other := newFixture(t, stranger)
		other.token = strings.TrimSpace(f.token)
		stranger.stop()
		plane.stop()
		stranger.address = plane.address
		stranger.start()
		other.start()
		if err := <-other.done; err == nil || !strings.Contains(err.Error(), "root differs") {
			t.Errorf("got %v", err)
		}
		other.cancel()
		other.cancel = nil
	})
}

// A replica that is away delays, but stops nothing: registration, report, feed and rotation find the next one.
func TestControllersAreTriedInTurn(t *testing.T) {
	plane := newController(t, east(), west()...)
	plane.also, plane.ttl = []string{"127.0.0.1:1"}, 4*time.Second
	f := newFixture(t, plane)
	f.start()
	f.ready()
	plane.has(mesh.ServiceKey(catalog, "east"), always)
	eventually(t, "rotation", func() bool { plane.mu.Lock(); defer plane.mu.Unlock(); return plane.rotations > 0 })
}

// F10: an agent that comes back with an empty folder but its credential withdraws nothing: neither from the
// controllers nor, by serving half a truth, from its own proxies.
func TestF10EmptyRestartWithdrawsNothing(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	for _, name := range []string{"c-1", "c-2"} {
		if _, _, err := f.announce(f.sidecar(f.workload()), announcement(name)); err != nil {
			t.Fatal(err)
		}
		plane.has(mesh.EndpointsKey(catalog, "east", name), health(mesh.Healthy))
	}
	f.stop()
	for _, name := range []string{"state.1", "state.2", "feed"} {
		os.RemoveAll(filepath.Join(f.dir, name))
	}
	f.grace = 1500 * time.Millisecond
	began := time.Now()
	f.start()
	eventually(t, "agent reports", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, `"controller": "127`) })
	eventually(t, "agent waits for the sidecars", func() bool {
		code, body := f.get("/ready")
		return code != http.StatusOK && strings.Contains(body, "waiting for the sidecars")
	})
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	plane.has(mesh.EndpointsKey(catalog, "east", "c-2"), nil)
	if took := time.Since(began); took < 3*f.grace {
		t.Errorf("c-2 withdrawn after %s, want not before %s", took, 3*f.grace)
	}
	plane.has(mesh.EndpointsKey(catalog, "east", "c-1"), health(mesh.Healthy))
	f.ready()
}

// F10, with the credential lost too: that the agent had to register again does not make the cluster a new one.
func TestF10RegisteredAgainWithdrawsNothing(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	plane.has(mesh.EndpointsKey(catalog, "east", "c-1"), health(mesh.Healthy))
	f.stop()
	os.RemoveAll(f.dir)
	plane.mu.Lock()
	plane.secret = jointoken.NewSecret()
	plane.mu.Unlock()
	f.token, f.grace = plane.token(), time.Second
	began := time.Now()
	f.start()
	f.ready()
	if took := time.Since(began); took < 3*f.grace {
		t.Errorf("ready after %s, want not before %s: the sidecars that are there were not waited for", took, 3*f.grace)
	}
}

// F10 and F19 together: an agent that comes back while the Workload API is away cannot be reached by its sidecars. That
// they do not come says nothing of them.
func TestF10RestartWithoutIdentityWithdrawsNothing(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	if _, _, err := f.announce(f.sidecar(f.workload()), announcement("c-1")); err != nil {
		t.Fatal(err)
	}
	key := mesh.EndpointsKey(catalog, "east", "c-1")
	plane.has(key, health(mesh.Healthy))
	f.stop()
	f.workloadSocket = "unix://" + filepath.Join(f.dir, "nobody")
	f.start()
	began := time.Now()
	eventually(t, "agent reports again", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, `"controller": "127`) })
	eventually(t, "restored endpoints' time is over", func() bool { return time.Since(began) > 6*f.grace })
	plane.has(key, health(mesh.Healthy))
	if _, body := f.get("/debug/endpointz"); !strings.Contains(body, "c-1") {
		t.Errorf("withdrawn: %s", body)
	}
}

// What proxies say of their load, and the proxies themselves, reach the controller.
func TestLoadAndProxiesAreReported(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	connection := f.sidecar(f.workload())
	node := &corev3.Node{Id: "sidecar~east~s-1", Cluster: "storefront.shop", Locality: &corev3.Locality{Region: "eu-west", Zone: "a"}}
	xdsStream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := xdsStream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: string(xds.Cluster)}); err != nil {
		t.Fatal(err)
	}
	stream, err := loadv3.NewLoadReportingServiceClient(connection).StreamLoadStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&loadv3.LoadStatsRequest{Node: node}); err != nil {
		t.Fatal(err)
	}
	asked, err := stream.Recv()
	if err != nil || !asked.GetSendAllClusters() || asked.GetLoadReportingInterval().AsDuration() != 2*time.Second {
		t.Fatalf("asked %v %v", asked, err)
	}
	eventually(t, "load arrives", func() bool {
		stats := &endpointv3.ClusterStats{ClusterName: "outbound|80||catalog.shop.svc.cluster.local", UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{
			Locality: &corev3.Locality{Region: "us-east", Zone: "b"}, TotalSuccessfulRequests: 1,
		}}}
		if err := stream.Send(&loadv3.LoadStatsRequest{ClusterStats: []*endpointv3.ClusterStats{stats}}); err != nil {
			t.Fatal(err)
		}
		plane.mu.Lock()
		defer plane.mu.Unlock()
		for _, l := range plane.loads {
			if len(l.GetRows()) > 0 && len(l.GetProxies()) > 0 {
				row, proxy := l.GetRows()[0], l.GetProxies()[0]
				return row.GetSourceZone() == "a" && row.GetDestinationRegion() == "us-east" && row.GetRequests() > 0 && l.GetWindowMs() > 0 &&
					proxy.GetId() == node.Id && proxy.GetService() == "storefront.shop" && proxy.GetRole() == "sidecar" && proxy.GetTypes()["CDS"] != ""
			}
		}
		return false
	})
}
