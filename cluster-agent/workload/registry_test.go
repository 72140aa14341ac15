package workload

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

var (
	domain   = spiffeid.RequireTrustDomainFromString("east.test")
	identity = spiffeid.RequireFromString("spiffe://east.test/ns/shop/sa/catalog")
	catalog  = mesh.ServiceName{Namespace: "shop", Name: "catalog"}
	epoch    = time.Unix(1_000, 0)
)

func registry(t testing.TB) *Registry {
	cluster := &mesh.Cluster{ID: "east", Region: "eu", TrustDomain: domain, State: mesh.ClusterActive, Networks: []mesh.NetworkRange{{
		Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}}}
	r, err := New(Config{
		Table: own.New(new(mesh.Store), own.Owner{Cluster: "east", Domain: domain}), Cluster: func() *mesh.Cluster { return cluster },
		GracePeriod: 10 * time.Second, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func request(name string, port uint32) *pb.AnnounceRequest {
	return &pb.AnnounceRequest{
		Name: name, Address: "10.0.0.1", Network: "n1", Health: pb.Health_HEALTH_HEALTHY,
		Services: []*pb.AnnouncedService{{Name: "catalog", Ports: []*pb.AnnouncedPort{{Name: "http", Port: port, Protocol: "http", EndpointPort: 9001}}}},
	}
}

func (r *Registry) must(t *testing.T, s *session, q *pb.AnnounceRequest) *pb.AnnounceResponse {
	t.Helper()
	response, err := r.announce(s, q)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// health of an endpoint; "": it is not there.
func (r *Registry) health(name string) mesh.Health {
	object, ok := r.config.Table.Get(own.Workloads, mesh.EndpointsKey(catalog, "east", name))
	if !ok {
		return ""
	}
	return object.(*mesh.EndpointSlice).Endpoints[0].Health
}

func (r *Registry) service1() *mesh.Service {
	object, _ := r.config.Table.Get(own.Workloads, mesh.ServiceKey(catalog, "east"))
	service, _ := object.(*mesh.Service)
	return service
}

func TestLifeOfAnEndpoint(t *testing.T) {
	r := registry(t)
	s := r.open(identity)
	r.must(t, s, request("c-1", 80))
	if r.health("c-1") != mesh.Healthy || r.service1() == nil || r.service1().Exported {
		t.Fatalf("announced: %q %+v", r.health("c-1"), r.service1())
	}
	r.close(s, epoch)
	if r.health("c-1") != mesh.Unhealthy {
		t.Errorf("lost: %q", r.health("c-1"))
	}
	r.expire(epoch.Add(10 * time.Second))
	if r.health("c-1") != mesh.Unhealthy {
		t.Errorf("within the grace period: %q", r.health("c-1"))
	}
	r.expire(epoch.Add(10*time.Second + 1))
	if r.health("c-1") != "" || r.service1() != nil {
		t.Errorf("after it: %q %+v", r.health("c-1"), r.service1())
	}
}

// F16: when most streams end together it may be the agent that is cut off. Then nobody is healthy for a while, but a
// service that is served is not without endpoints.
func TestF16MostLostTogetherStayListed(t *testing.T) {
	for lost, want := range map[int]time.Duration{1: 10 * time.Second, 2: 10 * time.Second, 3: 30 * time.Second, 4: 30 * time.Second} {
		r := registry(t)
		var sessions []*session
		for i := range 4 {
			s := r.open(identity)
			r.must(t, s, request(fmt.Sprint("c-", i), 80))
			sessions = append(sessions, s)
		}
		for _, s := range sessions[:lost] {
			r.close(s, epoch)
		}
		r.expire(epoch.Add(want))
		if got := r.health("c-0"); got != mesh.Unhealthy {
			t.Errorf("%d of 4 lost: %q after %v", lost, got, want)
		}
		r.expire(epoch.Add(want + 1))
		if got := r.health("c-0"); got != "" {
			t.Errorf("%d of 4 lost: %q after more than %v", lost, got, want)
		}
	}
}

func TestComesBackWithinGrace(t *testing.T) {
	r := registry(t)
	s := r.open(identity)
	r.must(t, s, request("c-1", 80))
	r.close(s, epoch)
	r.must(t, r.open(identity), request("c-1", 80))
	r.expire(epoch.Add(time.Hour))
	if r.health("c-1") != mesh.Healthy {
		t.Errorf("%q", r.health("c-1"))
	}
}

// A stream that was replaced has nothing more to say, however much of it was on its way: else two streams of one
// identity would take the name from each other for ever.
func TestReplacedStreamStaysReplaced(t *testing.T) {
	r := registry(t)
	older, newer := r.open(identity), r.open(identity)
	r.must(t, older, request("c-1", 80))
	r.must(t, newer, request("c-1", 80))
	if _, err := r.announce(older, request("c-1", 80)); status.Code(err) != codes.Aborted {
		t.Errorf("the older stream: %v, want aborted", err)
	}
	r.must(t, newer, request("c-1", 80))
	r.close(older, epoch)
	if r.health("c-1") != mesh.Healthy {
		t.Errorf("%q", r.health("c-1"))
	}
}

func TestRenamedLeavesNothingBehind(t *testing.T) {
	r := registry(t)
	s := r.open(identity)
	r.must(t, s, request("c-1", 80))
	r.must(t, s, request("c-2", 80))
	if r.health("c-1") != "" || r.health("c-2") != mesh.Healthy {
		t.Errorf("%q %q", r.health("c-1"), r.health("c-2"))
	}
}

func TestFrozenLosesNothing(t *testing.T) {
	r := registry(t)
	s := r.open(identity)
	r.must(t, s, request("c-1", 80))
	r.Freeze()
	r.close(s, epoch)
	if r.health("c-1") != mesh.Healthy {
		t.Errorf("%q", r.health("c-1"))
	}
}

// F10: the agent was away, not the workloads.
func TestF10RestoredKeepsItsHealth(t *testing.T) {
	before := registry(t)
	before.must(t, before.open(identity), request("c-1", 80))
	before.must(t, before.open(identity), request("c-2", 80))
	r := registry(t)
	r.Restore(before.config.Table.Layer(own.Workloads))
	if r.health("c-1") != mesh.Healthy || r.service1() == nil {
		t.Fatalf("restored: %q %+v", r.health("c-1"), r.service1())
	}
	r.expire(epoch.Add(-time.Second))
	if r.health("c-2") != mesh.Healthy {
		t.Errorf("withdrawn before it could announce itself: %q", r.health("c-2"))
	}
	r.Serving(epoch)
	r.must(t, r.open(identity), request("c-1", 80))
	r.expire(epoch.Add(29 * time.Second))
	if r.health("c-2") != mesh.Healthy {
		t.Errorf("withdrawn before its time: %q", r.health("c-2"))
	}
	r.expire(epoch.Add(31 * time.Second))
	if r.health("c-1") != mesh.Healthy || r.health("c-2") != "" || r.service1() == nil {
		t.Errorf("c-1 %q c-2 %q service %+v", r.health("c-1"), r.health("c-2"), r.service1())
	}
}

func TestSettlesAfterRestorePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry(t)
		began := time.Now()
		go r.Run(t.Context())
		time.Sleep(time.Hour)
		select {
		case <-r.Synced():
			t.Error("settled though nobody could announce itself")
		default:
		}
		began = time.Now()
		r.Serving(began)
		<-r.Synced()
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("settled after %s", took)
		}
	})
}

func TestPortsMustAgree(t *testing.T) {
	r := registry(t)
	r.must(t, r.open(identity), request("c-1", 80))
	s := r.open(identity)
	if got := r.must(t, s, request("c-2", 81)); len(got.GetRejections()) != 1 || !strings.Contains(got.GetRejections()[0].GetReason(), "contradicts") {
		t.Errorf("contradicting ports: %v", got)
	}
	// A service that the file defines is the file's to say; the port's name must be known there.
	r.config.Table.Apply(own.File, mesh.Delta{Upserts: []mesh.Object{&mesh.Service{
		Name: catalog, Cluster: "east", Exported: true, Ports: []mesh.ServicePort{{Name: "http", Port: 8000, Protocol: mesh.HTTP}},
	}}})
	if got := r.must(t, s, request("c-2", 81)); len(got.GetRejections()) != 0 {
		t.Errorf("known port name: %v", got)
	}
	unknown := request("c-2", 81)
	unknown.Services[0].Ports[0].Name = "grpc"
	if got := r.must(t, s, unknown); len(got.GetRejections()) != 1 || !strings.Contains(got.GetRejections()[0].GetReason(), "services file") {
		t.Errorf("unknown port name: %v", got)
	}
}

func TestPlace(t *testing.T) {
	r := registry(t)
	q := request("c-1", 80)
	q.Network = ""
	r.must(t, r.open(identity), q)
	object, _ := r.config.Table.Get(own.Workloads, mesh.EndpointsKey(catalog, "east", "c-1"))
	if e := object.(*mesh.EndpointSlice).Endpoints[0]; e.Network != "n1" || e.Locality.Region != "eu" {
		t.Errorf("defaults: %+v", e)
	}
	q.Locality = &pb.Locality{Region: "us"}
	if _, err := r.announce(r.open(identity), q); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("another region: %v", err)
	}
}

func TestGateway(t *testing.T) {
	r := registry(t)
	s := r.open(mesh.GatewayIdentity(domain))
	q := &pb.AnnounceRequest{Name: "gw-1", Address: "10.0.0.1", Network: "n1", Gateway: &pb.AnnouncedGateway{Port: 15443}}
	if got := r.must(t, s, q); len(got.GetKeys()) != 1 || got.GetKeys()[0] != "gateway/east/gw-1" {
		t.Fatalf("%v", got)
	}
	r.close(s, epoch)
	object, _ := r.config.Table.Get(own.Workloads, "gateway/east/gw-1")
	if g := object.(*mesh.Gateway); g.Health != mesh.Unhealthy {
		t.Errorf("lost gateway is %s", g.Health)
	}
	q.Services = request("x", 80).Services
	if _, err := r.announce(r.open(mesh.GatewayIdentity(domain)), q); err == nil {
		t.Error("a gateway announced services")
	}
}

func FuzzAnnounce(f *testing.F) {
	f.Add("c-1", "10.0.0.1", "n1", "catalog", "http", uint32(80), uint32(9001), "http", true)
	f.Add("", "::1%eth0", "", "a.b", "", uint32(0), uint32(70000), "", false)
	f.Fuzz(func(t *testing.T, name, address, network, service, port string, number, endpoint uint32, protocol string, workload bool) {
		r := registry(t)
		peer := identity
		q := &pb.AnnounceRequest{Name: name, Address: address, Network: network, Services: []*pb.AnnouncedService{{
			Name: service, Ports: []*pb.AnnouncedPort{{Name: port, Port: number, Protocol: protocol, EndpointPort: endpoint}},
		}}}
		if !workload {
			peer, q.Gateway, q.Services = mesh.GatewayIdentity(domain), &pb.AnnouncedGateway{Port: number}, nil
		}
		if _, err := r.announce(r.open(peer), q); err != nil {
			return
		}
		for _, o := range r.config.Table.Layer(own.Workloads) {
			if err := o.Validate(); err != nil {
				t.Errorf("accepted %s: %v", o.Key(), err)
			}
		}
	})
}

// A change of one of 1 000 workloads of one service. 2-core cloud machine: about 15 us.
func BenchmarkAnnounce(b *testing.B) {
	r := registry(b)
	sessions := make([]*session, 1000)
	for i := range sessions {
		sessions[i] = r.open(identity)
		if _, err := r.announce(sessions[i], request(fmt.Sprint("c-", i), 80)); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for i := range b.N {
		q := request(fmt.Sprint("c-", i%1000), 80)
		q.Weight = uint32(2 + i/1000%1000)
		r.announce(sessions[i%1000], q)
	}
}
