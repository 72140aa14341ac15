package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// leaderAt are the leader's mesh address, dashboard and log.
func (m *mesh) leaderAt(t *testing.T) (address, dashboard, log string) {
	t.Helper()
	leader, err := m.leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, address := range m.controllers() {
		if p := m.plan.Processes[i]; p.Name == leader {
			return address, m.plan.DashboardURL(i), m.plan.Dir + "/logs/" + p.Name + ".log"
		}
	}
	t.Fatalf("no process of %q", leader)
	return "", "", ""
}

// counted adds up the values of a metric, by a pattern of its labels.
func counted(t *testing.T, url, pattern string) (sum float64) {
	t.Helper()
	for _, match := range regexp.MustCompile(`(?m)^`+pattern+`(?:\{[^}]*\})? ([0-9.e+]+)$`).FindAllStringSubmatch(read(t, url), -1) {
		value, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += value
	}
	return sum
}

// rogue is whoever has an agent's credential and speaks its protocol.
type rogue struct {
	stream pb.AgentService_ReportClient
	epoch  uint64
	number uint64
}

// impersonate opens a report stream; the error is what the controller says instead of Welcome.
func impersonate(t *testing.T, ctx context.Context, cluster, address string) (*rogue, error) {
	t.Helper()
	return impersonateAs(t, ctx, agentCredential(t, cluster), address)
}

func impersonateAs(t *testing.T, ctx context.Context, credential trust.Source, address string) (*rogue, error) {
	t.Helper()
	stream, err := pb.NewAgentServiceClient(connectAs(t, address, "", credential)).Report(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: &pb.Hello{AgentVersion: "rogue", Instance: "rogue"}}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	response, err := stream.Recv() // says why the stream ended, which Send (io.EOF) does not
	if err != nil {
		return nil, err
	}
	return &rogue{stream: stream, epoch: response.GetWelcome().GetEpoch()}, nil
}

func (r *rogue) report(t *testing.T, upserts []*pb.Object, deletes ...string) *pb.Ack {
	t.Helper()
	r.number++
	update := &pb.Update{Epoch: r.epoch, Sequence: r.number, Upserts: upserts, Deletes: deletes}
	if err := r.stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Update{Update: update}}); err != nil {
		t.Fatal(err)
	}
	response, err := r.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return response.GetAck()
}

func service(cluster, name string) *pb.Object {
	return &pb.Object{Kind: &pb.Object_Service{Service: &pb.Service{
		Name: &pb.ServiceName{Namespace: "shop", Name: name}, Cluster: cluster, Exported: true,
		Ports: []*pb.ServicePort{{Name: "http", Port: 80, Protocol: "http"}},
	}}}
}

// slice is one good endpoint of eu-west, changed.
func slice(cluster string, change func(*pb.Endpoint)) *pb.Object {
	e := &pb.Endpoint{
		Name: "rogue", Address: prefix + ".1.250", Ports: map[string]uint32{"http": 15006}, Network: "eu-west", Weight: 1,
		Locality: &pb.Locality{Region: "eu-west", Zone: "eu-west-a"}, Health: pb.Health_HEALTH_HEALTHY, Identity: "spiffe://eu-west.mesh/ns/shop/sa/rogue",
	}
	change(e)
	return &pb.Object{Kind: &pb.Object_EndpointSlice{EndpointSlice: &pb.EndpointSlice{
		Service: &pb.ServiceName{Namespace: "shop", Name: "rogue"}, Cluster: cluster, Slice: "rogue", Endpoints: []*pb.Endpoint{e},
	}}}
}

func gateway(cluster, network, address string) *pb.Object {
	return &pb.Object{Kind: &pb.Object_Gateway{Gateway: &pb.Gateway{
		Cluster: cluster, Name: "rogue", Network: network, Address: address, Port: 15443, Locality: &pb.Locality{Region: "eu-west"}, Health: pb.Health_HEALTH_HEALTHY,
	}}}
}

func federation(cluster, domain string) *pb.Object {
	ca := trusttest.NewCA(domain)
	return &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{TrustDomain: domain, Cluster: cluster, Sequence: 1 << 40, Bundle: ca.JWKS(1 << 40)}}}
}

func asIs(*pb.Endpoint) {}

// lies are what an agent of eu-west may not say, each with the reason that it must be given.
var lies = []struct {
	what   string
	object *pb.Object
	reason string
}{
	{"a service of another cluster", service("us-east", "catalog"), "cluster: "},
	{"endpoints of another cluster", slice("us-east", asIs), "cluster: "},
	{"an endpoint in another cluster's network", slice("eu-west", func(e *pb.Endpoint) { e.Network, e.Address = "us-east", prefix+".2.22" }), "network: "},
	{"an endpoint in a network of nobody", slice("eu-west", func(e *pb.Endpoint) { e.Network = "internet" }), "network: "},
	{"another cluster's address in the own network", slice("eu-west", func(e *pb.Endpoint) { e.Address = prefix + ".2.22" }), "network: "},
	{"the controller's address", slice("eu-west", func(e *pb.Endpoint) { e.Address = "127.0.0.1" }), "network: "},
	{"an endpoint in another region", slice("eu-west", func(e *pb.Endpoint) { e.Locality.Region = "us-east" }), "region: "},
	{"an identity of another trust domain", slice("eu-west", func(e *pb.Endpoint) { e.Identity = "spiffe://us-east.mesh/ns/shop/sa/catalog" }), "identity: "},
	{"an identity of the control plane", slice("eu-west", func(e *pb.Endpoint) { e.Identity = "spiffe://periplus.global/controller/controller-eu-west" }), "identity: "},
	{"another cluster's gateway", gateway("us-east", "us-east", prefix+".2.250"), "cluster: "},
	{"a gateway into another network", gateway("eu-west", "us-east", prefix+".2.250"), "network: "},
	{"a gateway at a foreign address", gateway("eu-west", "eu-west", prefix+".2.250"), "network: "},
	{"another cluster's bundle", federation("us-east", "us-east.mesh"), "cluster: "},
	{"another trust domain's bundle as the own", federation("eu-west", "us-east.mesh"), "identity: "},
	{"the control plane's bundle", federation("eu-west", "periplus.global"), "identity: "},
	{"a bundle that the old one did not sign", federation("eu-west", "eu-west.mesh"), "bundle: "},
	{"its own registration", &pb.Object{Kind: &pb.Object_Cluster{Cluster: &pb.Cluster{
		Id: "eu-west", Region: "eu-west", TrustDomain: "eu-west.mesh", Networks: []*pb.Network{{Name: "all", Cidrs: []string{"0.0.0.0/0"}}}, State: pb.ClusterState_CLUSTER_STATE_ACTIVE,
	}}}, "kind: "},
	{"a join token", &pb.Object{Kind: &pb.Object_JoinToken{JoinToken: &pb.JoinToken{Hash: strings.Repeat("0", 64), ExpiresAtMs: 1 << 50,
		Cluster: &pb.Cluster{Id: "evil", Region: "x", TrustDomain: "evil.mesh", Networks: []*pb.Network{{Name: "evil", Cidrs: []string{"10.0.0.0/8"}}}, State: pb.ClusterState_CLUSTER_STATE_ACTIVE}}}}, ""},
	{"another cluster's cursor", &pb.Object{Kind: &pb.Object_Cursor{Cursor: &pb.Cursor{Cluster: "us-east", Epoch: 1 << 40, Sequence: 1}}}, "kind: "},
	{"a policy", &pb.Object{Kind: &pb.Object_Policy{Policy: &pb.Policy{Kind: "AuthorizationPolicy", Namespace: "shop", Name: "evil"}}}, ""},
	{"nothing", &pb.Object{}, "malformed: "},
	{"a service without a name", service("eu-west", ""), "malformed: "},
	{"a name that is not one", service("eu-west", "../../us-east"), "malformed: "},
	{"a port beyond the ports", slice("eu-west", func(e *pb.Endpoint) { e.Ports["http"] = 70000 }), "malformed: "},
	{"an address that is none", slice("eu-west", func(e *pb.Endpoint) { e.Address = "localhost" }), "malformed: "},
}

// of is what the mesh says of a cluster and its trust domain, without what changes by itself.
func (m *mesh) of(t *testing.T, cluster string) string {
	t.Helper()
	clusters, err := m.client.Clusters.ListClusters(t.Context(), connect.NewRequest(&pb.ListClustersRequest{Id: cluster}))
	if err != nil {
		t.Fatal(err)
	}
	s := clusters.Msg.GetItems()[0]
	return fmt.Sprint(s.GetCluster(), s.GetServices(), s.GetExportedServices(), s.GetEndpoints(), s.GetHealthyEndpoints(), s.GetGateways(), s.GetBundleSequence())
}

// Whoever steals an agent's credential can say of its cluster what he likes, and of nothing else.
func TestRogueAgent(t *testing.T) {
	address, dashboard, log := running.leaderAt(t)
	if _, err := impersonate(t, t.Context(), "eu-west", address); status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), "is connected") {
		t.Errorf("a second agent beside the first: %v", err)
	}
	running.act(t, "stop", "agent-eu-west")
	var r *rogue
	within(t, 8*time.Second, "the credential is as good as the agent's", func() (err error) {
		r, err = impersonate(t, t.Context(), "eu-west", address)
		return err
	})
	before := running.of(t, "us-east")
	rejected := counted(t, dashboard+"metrics", "periplus_ingest_rejected_total")
	l := startLoad(t, running.outbound("visitor-us-east-a"), "catalog.shop")

	upserts := []*pb.Object{service("eu-west", "rogue")}
	for _, lie := range lies {
		upserts = append(upserts, lie.object)
	}
	ack := r.report(t, append(upserts, slice("eu-west", asIs)),
		"service/shop/catalog/us-east", "cluster/us-east", "policy/VirtualService/shop/any", "federation/eu-west.mesh", "nonsense")
	const badDeletes = 5
	if got := len(ack.GetRejections()); got != len(lies)+badDeletes {
		t.Fatalf("%d rejections, want %d: %v", got, len(lies)+badDeletes, ack)
	}
	for i, lie := range lies {
		if got := ack.GetRejections()[badDeletes+i]; !strings.HasPrefix(got.GetReason(), lie.reason) || got.GetReason() == "" {
			t.Errorf("%s: rejected because %q, want %q", lie.what, got.GetReason(), lie.reason)
		}
	}
	if rose := counted(t, dashboard+"metrics", "periplus_ingest_rejected_total") - rejected; rose != float64(len(lies)+badDeletes) {
		t.Errorf("the leader counted %v rejections", rose)
	}
	text, err := os.ReadFile(log)
	if err != nil || !regexp.MustCompile(`report rejected.* audit=true .*cluster=eu-west`).Match(text) {
		t.Errorf("the leader's log does not name what was rejected (%v)", err)
	}
	within(t, 3*time.Second, "the valid rest is applied", func() error {
		if status, body, _ := ask(t, running.outbound(visitorA), "rogue.shop", "/", nil); status != 503 && status != 502 {
			return fmt.Errorf("the service that nobody serves: %d %s", status, body)
		}
		return nil
	})
	if after := running.of(t, "us-east"); after != before {
		t.Errorf("us-east changed: %s, before %s", after, before)
	}
	if ack := r.report(t, nil, "service/shop/rogue/eu-west", "endpoints/shop/rogue/eu-west/rogue"); len(ack.GetRejections()) > 0 {
		t.Errorf("its own objects may go: %v", ack)
	}
	r.stream.CloseSend()
	running.restore(t, "agent-eu-west")
	time.Sleep(time.Second)
	results := l.stop()
	noneFailed(t, results)
	if got := shares(results, region); got["us-east"] != 1 {
		t.Errorf("the requests of us-east went to %v", got)
	}
}

// A join token that thirty agents show to three replicas at the same moment works for one of them.
func TestReplayedTokenWorksOnce(t *testing.T) {
	t.Cleanup(func() { run(t, "cluster", "remove", "replay", "--force") })
	out, stderr, code := run(t, "cluster", "register", "replay", "--region", "eu-west", "--network", "replay="+prefix+".88.0/24", "--trust-domain", "replay.mesh")
	if code != 0 {
		t.Fatal(stderr)
	}
	token, err := jointoken.Parse(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	const each = 10
	var mu sync.Mutex
	var all sync.WaitGroup
	outcomes := map[string]int{}
	begin := make(chan struct{})
	for replica, address := range running.controllers() {
		for i := range each {
			// From an address of its own: each may try only a few times a minute.
			client := pb.NewAgentServiceClient(connectAs(t, address, fmt.Sprintf("%s.%d.%d", prefix, 100+replica, 1+i), nil))
			request := registration(t, token)
			all.Go(func() {
				<-begin
				response, err := client.Register(t.Context(), proto.CloneOf(request))
				outcome := status.Code(err).String()
				switch {
				case err == nil && len(response.GetCredential().GetCertificates()) > 0:
					outcome = "success"
				case strings.Contains(fmt.Sprint(err), "join token was used"):
					outcome = "used"
				}
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			})
		}
	}
	close(begin)
	all.Wait()
	t.Logf("outcomes: %v", outcomes)
	if outcomes["success"] != 1 || outcomes["used"] != 3*each-1 {
		t.Errorf("outcomes %v, want one success and %d times used", outcomes, 3*each-1)
	}
}

func registration(t *testing.T, token jointoken.Token) *pb.RegisterRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		t.Fatal(err)
	}
	return &pb.RegisterRequest{TokenSecret: token.Secret, Cluster: token.Cluster, TrustDomain: token.TrustDomain, Csr: csr, AgentVersion: "test"}
}
