package clusteragent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const services = `apiVersion: periplus.io/v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  exported: true
  ports:
  - {name: http, port: 80, protocol: http}
`

func east() *mesh.Cluster {
	return &mesh.Cluster{
		ID: "east", Region: "eu-west", TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), State: mesh.ClusterActive,
		Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
	}
}

var catalog = mesh.ServiceName{Namespace: "shop", Name: "catalog"}

// west is another cluster with one exported service on another network.
func west() []mesh.Object {
	network := mesh.NetworkRange{Name: "n2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	return []mesh.Object{
		&mesh.Cluster{ID: "west", Region: "us-east", TrustDomain: spiffeid.RequireTrustDomainFromString("west.test"), State: mesh.ClusterActive, Networks: []mesh.NetworkRange{network}},
		&mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: "inventory"}, Cluster: "west", Exported: true, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}},
		&mesh.Gateway{Cluster: "west", Name: "gw", Network: "n2", Address: netip.MustParseAddr("10.0.0.1"), Port: 15443, Health: mesh.Healthy},
	}
}

// fixture is one agent that can be stopped and started again in its folder.
type fixture struct {
	t                            *testing.T
	ca                           *trusttest.CA
	dir                          string
	file                         string
	token                        string
	grace                        time.Duration
	address                      string
	admin                        string
	workloadSocket, serverSocket string
	cancel                       context.CancelFunc
	done                         chan error
}

func newFixture(t *testing.T, c *controller) *fixture {
	dir := t.TempDir()
	f := &fixture{t: t, ca: trusttest.NewCA("east.test"), dir: filepath.Join(dir, "data"), file: filepath.Join(dir, "services.yaml"), token: c.token(), grace: 300 * time.Millisecond}
	f.write(services)
	t.Cleanup(func() {
		if f.cancel != nil {
			f.stop()
		}
	})
	return f
}

func (f *fixture) write(content string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (f *fixture) start() {
	listener, admin := listen(f.t), listen(f.t)
	f.address, f.admin = listener.Addr().String(), "http://"+admin.Addr().String()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan error, 1)
	config := Config{
		DataDir: f.dir, JoinToken: f.token, Listener: listener, AdminListener: admin, Source: f.ca.Source("/periplus/agent", time.Hour),
		ServicesFile: f.file, GracePeriod: f.grace, Log: log,
	}
	if f.workloadSocket != "" {
		config.Source, config.WorkloadSocket, config.ServerSocket = nil, f.workloadSocket, f.serverSocket
	}
	go func() { f.done <- Run(ctx, config) }()
}

func (f *fixture) stop() {
	f.t.Helper()
	f.cancel()
	f.cancel = nil
	if err := <-f.done; err != nil {
		f.t.Errorf("run: %v", err)
	}
}

func (f *fixture) get(path string) (int, string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(f.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (f *fixture) ready() {
	f.t.Helper()
	last := ""
	eventually(f.t, "agent is ready", func() bool {
		code, body := f.get("/ready")
		if body != last {
			last = body
			f.t.Log(strings.TrimSpace(body))
		}
		return code == http.StatusOK
	})
}

// metric is the value of a metric without labels.
func (f *fixture) metric(name string) string {
	_, body := f.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func now() time.Time { return time.Now() }

func uid() string { return fmt.Sprint(os.Getuid()) }

// sidecar is a connection with an SVID.
func (f *fixture) sidecar(source trust.Source) *grpc.ClientConn {
	config := trust.ClientConfig(source, trust.AuthorizeOneOf(mesh.AgentIdentity(f.ca.TrustDomain)))
	connection, err := grpc.NewClient("passthrough:///"+f.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { connection.Close() })
	return connection
}

func (f *fixture) announce(connection *grpc.ClientConn, request *pb.AnnounceRequest) (pb.WorkloadService_AnnounceClient, *pb.AnnounceResponse, error) {
	stream, err := pb.NewWorkloadServiceClient(connection).Announce(f.t.Context())
	if err != nil {
		return nil, nil, err
	}
	if err := stream.Send(request); err != nil && err != io.EOF {
		f.t.Fatal(err)
	}
	response, err := stream.Recv()
	return stream, response, err
}

func announcement(name string) *pb.AnnounceRequest {
	return &pb.AnnounceRequest{
		Name: name, Address: "127.0.0.1", Network: "n1", Locality: &pb.Locality{Region: "eu-west", Zone: "a"}, Health: pb.Health_HEALTH_HEALTHY,
		Services: []*pb.AnnouncedService{{Name: "catalog", Ports: []*pb.AnnouncedPort{{Name: "http", Port: 80, Protocol: "http", EndpointPort: 9001}}}},
	}
}

func (f *fixture) workload() trust.Source { return f.ca.Source("/ns/shop/sa/catalog", time.Hour) }

// clusters asks the agent over delta xDS for all clusters.
func (f *fixture) clusters(connection *grpc.ClientConn) ([]string, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	node := &corev3.Node{Id: "sidecar~east~s-1", Locality: &corev3.Locality{Region: "eu-west", Zone: "a"}}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: string(xds.Cluster)}); err != nil {
		return nil, err
	}
	response, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range response.GetResources() {
		names = append(names, r.GetName())
	}
	return names, nil
}

func health(want mesh.Health) func(mesh.Object) bool {
	return func(o mesh.Object) bool { return o.(*mesh.EndpointSlice).Endpoints[0].Health == want }
}

func always(mesh.Object) bool { return true }

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
	if _, body := f.get("/debug/syncz"); !strings.Contains(body, "only the agent of cluster") {
		t.Errorf("the forged object is not named: %s", body)
	}
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
	f.grace = 700 * time.Millisecond
	began := time.Now()
	f.start()
	eventually(t, "agent reports", func() bool { _, body := f.get("/debug/syncz"); return strings.Contains(body, `"controller": "127`) })
	if code, body := f.get("/ready"); code == http.StatusOK || !strings.Contains(body, "waiting for the sidecars") {
		t.Errorf("ready before the sidecars had the time to come back: %s", body)
	}
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

func TestFolderBelongsToOneAgentOfOneCluster(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	run := func(token string) error {
		return Run(t.Context(), Config{DataDir: f.dir, JoinToken: token, Listener: listen(t), Source: f.ca.Source("/periplus/agent", time.Hour)})
	}
	if err := run(f.token); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("second agent: %v", err)
	}
	f.stop()
	other := *plane.cluster
	other.ID = "north"
	plane.cluster, plane.secret = &other, strings.Repeat("A", 43)
	if err := run(plane.token()); err == nil || !strings.Contains(err.Error(), `belongs to cluster "east"`) {
		t.Errorf("another cluster's token: %v", err)
	}
}
