package global

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/jointoken"
)

// T5: a stolen token.
func TestTokenIsUsedOnce(t *testing.T) {
	c := start(t, "a", "b", "c")
	token := c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	var done, used atomic.Int32
	var group sync.WaitGroup
	for _, id := range []string{"a", "b", "c"} {
		client := c.anonymous(id, token)
		for range 5 { // a replica lets an address try five times a minute
			group.Go(func() {
				_, csr := request(t)
				_, err := client.Register(t.Context(), asRequest(token, csr))
				switch {
				case err == nil:
					done.Add(1)
				case strings.Contains(err.Error(), "used"):
					used.Add(1)
				default:
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	if done.Load() != 1 || used.Load() != 14 {
		t.Errorf("%d succeeded, %d were told that it is used; want 1 and 14", done.Load(), used.Load())
	}
	_, csr := request(t)
	if _, err := c.anonymous("a", token).Register(t.Context(), asRequest(token, csr)); status.Code(err) != codes.ResourceExhausted && status.Code(err) != codes.PermissionDenied {
		t.Errorf("the sixth attempt: %v", err)
	}
}

// The answer to a registration is lost, and the agent asks again with the key that it kept: any replica gives it another
// credential, unless the cluster's were revoked since.
func TestAgentMayAskAgain(t *testing.T) {
	c := start(t, "a", "b")
	token := c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	_, csr := request(t)
	ask := func(at string) error {
		response, err := c.anonymous(at, token).Register(t.Context(), asRequest(token, csr))
		if err == nil && len(response.GetCredential().GetCertificates()) == 0 {
			t.Error("an answer without a credential")
		}
		return err
	}
	for _, at := range []string{"a", "a", "b"} {
		if err := ask(at); err != nil {
			t.Errorf("at %s: %v", at, err)
		}
	}
	_, other := request(t)
	if _, err := c.anonymous("b", token).Register(t.Context(), asRequest(token, other)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("somebody else, with the same token: %v", err)
	}
	clusters, _ := c.admin("a")
	if _, err := clusters.RotateCluster(t.Context(), connect.NewRequest(&pb.RotateClusterRequest{Id: "west", Revoke: true})); err != nil {
		t.Fatal(err)
	}
	if err := ask("a"); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "rotated") {
		t.Errorf("after the credential was revoked: %v", err)
	}
}

func TestTokenErrorsSayWhich(t *testing.T) {
	c := start(t, "a")
	token := c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	client := c.anonymous("a", token)
	for want, change := range map[string]func(*pb.RegisterRequest){
		"unknown":             func(r *pb.RegisterRequest) { r.TokenSecret = jointoken.NewSecret() },
		`not "east"`:          func(r *pb.RegisterRequest) { r.Cluster = "east" },
		`not "east.mesh"`:     func(r *pb.RegisterRequest) { r.TrustDomain = "east.mesh" },
		"certificate request": func(r *pb.RegisterRequest) { r.Csr = []byte("?") },
	} {
		_, csr := request(t)
		r := asRequest(token, csr)
		change(r)
		if _, err := client.Register(t.Context(), r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestRegistrationIsIdempotentAndRefusesConflicts(t *testing.T) {
	c := start(t, "a")
	clusters, _ := c.admin("a")
	first := c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	second := c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	_, csr := request(t)
	client := c.anonymous("a", first)
	if _, err := client.Register(t.Context(), asRequest(first, csr)); err == nil {
		t.Error("the older token still works")
	}
	if _, err := client.Register(t.Context(), asRequest(second, csr)); err != nil {
		t.Error(err)
	}
	for want, spec := range map[string]*pb.Cluster{
		"region": cluster("west", "us-east", "10.1.0.0/16"),
		"belongs to": func() *pb.Cluster {
			s := cluster("east", "eu-west", "10.1.0.0/16")
			s.TrustDomain = "west.mesh"
			return s
		}(),
		"with trust domain":   func() *pb.Cluster { s := cluster("west", "eu-west", "10.1.0.0/16"); s.TrustDomain = "x.mesh"; return s }(),
		"control plane's own": func() *pb.Cluster { s := cluster("east", "eu-west", "10.1.0.0/16"); s.TrustDomain = plane; return s }(),
		"RFC 1123":            func() *pb.Cluster { s := cluster("x", "eu-west", "10.1.0.0/16"); s.Id = "Upper"; return s }(),
	} {
		_, err := clusters.RegisterCluster(t.Context(), connect.NewRequest(&pb.RegisterClusterRequest{Cluster: spec}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestOnlyOperatorsChangeAnything(t *testing.T) {
	c := start(t, "a")
	agent := c.join("a", cluster("west", "eu-west", "10.1.0.0/16"))
	base := "https://" + c.configs["a"].AdminListener.Addr().String()
	body := func() io.Reader { return strings.NewReader("{}") }
	response, err := c.httpClient(agent).Post(base+"/periplus.v1.MeshService/Overview", "application/json", body())
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("an agent at the admin listener: %s", response.Status)
	}
	for path, want := range map[string]int{
		"/periplus.v1.MeshService/Overview":           http.StatusOK,
		"/periplus.v1.ClusterService/RegisterCluster": http.StatusNotFound,
		"/periplus.v1.PolicyService/ApplyPolicy":      http.StatusNotFound,
		"/periplus.v1.MeshService/RemoveMember":       http.StatusNotFound,
	} {
		response, err := http.Post(c.dashboard("a", path), "application/json", body())
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want || response.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("dashboard %s: %s", path, response.Status)
		}
	}
	foreign, _ := http.NewRequest(http.MethodPost, c.dashboard("a", "/periplus.v1.MeshService/Overview"), body())
	foreign.Header.Set("Origin", "https://evil.example")
	foreign.Header.Set("Content-Type", "application/json")
	response, err = http.DefaultClient.Do(foreign)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("another origin: %s", response.Status)
	}
}

// reporter is an agent's report stream.
type reporter struct {
	t       *testing.T
	stream  pb.AgentService_ReportClient
	welcome *pb.Welcome
	seq     uint64
}

func report(t *testing.T, client pb.AgentServiceClient, instance string) (*reporter, error) {
	stream, err := client.Report(t.Context())
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: &pb.Hello{Instance: instance, AgentVersion: "test"}}}); err != nil {
		return nil, err
	}
	m, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	return &reporter{t: t, stream: stream, welcome: m.GetWelcome()}, nil
}

func (r *reporter) update(upserts []*pb.Object, deletes ...string) *pb.Ack {
	r.t.Helper()
	r.seq++
	err := r.stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Update{Update: &pb.Update{
		Epoch: r.welcome.GetEpoch(), Sequence: r.seq, Upserts: upserts, Deletes: deletes,
	}}})
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := r.stream.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	return m.GetAck()
}

func service(cluster, namespace, name string) *pb.Object {
	return &pb.Object{Kind: &pb.Object_Service{Service: &pb.Service{
		Name: &pb.ServiceName{Namespace: namespace, Name: name}, Cluster: cluster, Exported: true,
		Ports: []*pb.ServicePort{{Name: "http", Port: 80, Protocol: "http"}},
	}}}
}

func endpoints(cluster, name string, edit func(*pb.Endpoint)) *pb.Object {
	e := &pb.Endpoint{
		Name: name + "-1", Address: "10.1.0.5", Ports: map[string]uint32{"http": 8080}, Network: "west-net", Health: pb.Health_HEALTH_HEALTHY,
		Locality: &pb.Locality{Region: "eu-west", Zone: "a"}, Identity: "spiffe://west.mesh/ns/shop/sa/" + name,
	}
	if edit != nil {
		edit(e)
	}
	return &pb.Object{Kind: &pb.Object_EndpointSlice{EndpointSlice: &pb.EndpointSlice{
		Service: &pb.ServiceName{Namespace: "shop", Name: name}, Cluster: cluster, Slice: "s", Endpoints: []*pb.Endpoint{e},
	}}}
}

// T1, T2, F25: a rogue agent. Every forged object is rejected with its reason, and what is right beside it is applied.
func TestRogueAgent(t *testing.T) {
	c := start(t, "a", "b", "c")
	source := c.join("a", cluster("west", "eu-west", "10.1.0.0/16"))
	c.register("a", cluster("east", "us-east", "10.2.0.0/16"))
	r, err := report(t, pb.NewAgentServiceClient(c.agent("b", source)), "1")
	if err != nil {
		t.Fatal(err)
	}
	forged := []struct {
		reason string
		object *pb.Object
	}{
		{"cluster", service("east", "shop", "catalog")},
		{"namespace", service("west", "kube-system", "catalog")},
		{"cluster", endpoints("east", "catalog", nil)},
		{"network", endpoints("west", "p1", func(e *pb.Endpoint) { e.Address = "10.2.0.5" })},
		{"network", endpoints("west", "p2", func(e *pb.Endpoint) { e.Network = "east-net" })},
		{"network", endpoints("west", "p3", func(e *pb.Endpoint) { e.Address = "127.0.0.1" })},
		{"malformed", endpoints("west", "p4", func(e *pb.Endpoint) { e.Address = "0.0.0.0" })},
		{"malformed", endpoints("west", "p5", func(e *pb.Endpoint) { e.Address = "224.0.0.1" })},
		{"malformed", endpoints("west", "p6", func(e *pb.Endpoint) { e.Ports = map[string]uint32{"http": 0} })},
		{"malformed", endpoints("west", "p7", func(e *pb.Endpoint) { e.Ports = map[string]uint32{"http": 70000} })},
		{"malformed", endpoints("west", "p8", func(e *pb.Endpoint) { e.Weight = 1<<32 - 1 })},
		{"identity", endpoints("west", "p9", func(e *pb.Endpoint) { e.Identity = "spiffe://east.mesh/ns/shop/sa/catalog" })},
		{"identity", endpoints("west", "p10", func(e *pb.Endpoint) { e.Identity = "spiffe://periplus.global/controller/a" })},
		{"region", endpoints("west", "p11", func(e *pb.Endpoint) { e.Locality.Region = "us-east" })},
		{"cluster", &pb.Object{Kind: &pb.Object_Gateway{Gateway: &pb.Gateway{Cluster: "east", Name: "g", Network: "east-net", Address: "10.2.0.9", Port: 1}}}},
		{"network", &pb.Object{Kind: &pb.Object_Gateway{Gateway: &pb.Gateway{Cluster: "west", Name: "g", Network: "west-net", Address: "10.2.0.9", Port: 1}}}},
		{"kind", &pb.Object{Kind: &pb.Object_Cluster{Cluster: cluster("west", "eu-west", "0.0.0.0/0")}}},
		{"kind", &pb.Object{Kind: &pb.Object_Cursor{Cursor: &pb.Cursor{Cluster: "east", Epoch: 1 << 60}}}},
		{"kind", &pb.Object{Kind: &pb.Object_JoinToken{JoinToken: &pb.JoinToken{Hash: strings.Repeat("0", 64), Cluster: cluster("west", "eu-west", "10.1.0.0/16")}}}},
		{"kind", &pb.Object{Kind: &pb.Object_PolicyRevision{PolicyRevision: &pb.PolicyRevision{Revision: 1}}}},
		{"cluster", &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{TrustDomain: "east.mesh", Cluster: "east", Sequence: 9, Bundle: []byte("{}")}}}},
		{"identity", &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{TrustDomain: "east.mesh", Cluster: "west", Sequence: 9, Bundle: []byte("{}")}}}},
		{"bundle", &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{TrustDomain: "west.mesh", Cluster: "west", Sequence: 9, Bundle: []byte("{}")}}}},
		{"malformed", &pb.Object{}},
		{"malformed", nil},
	}
	upserts := []*pb.Object{service("west", "shop", "catalog")}
	for _, f := range forged {
		upserts = append(upserts, f.object)
	}
	upserts = append(upserts, endpoints("west", "catalog", nil))
	ack := r.update(upserts, "service/shop/catalog/east", "cluster/west", "token/x", "gateway/west/none")
	rejections := ack.GetRejections()
	if len(rejections) != len(forged)+3 {
		t.Fatalf("%d rejections, want %d", len(rejections), len(forged)+3)
	}
	for i, f := range forged {
		if got := rejections[i+3].GetReason(); !strings.HasPrefix(got, f.reason+": ") {
			t.Errorf("%d: want %s, got %s", i, f.reason, got)
		}
	}
	_, meshes := c.admin("c")
	eventually(t, "the honest part is applied", func() bool {
		overview, err := meshes.Overview(t.Context(), connect.NewRequest(&pb.OverviewRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, status := range overview.Msg.GetClusters() {
			if status.GetCluster().GetId() == "east" && status.GetServices()+status.GetEndpoints()+status.GetGateways() != 0 {
				t.Fatalf("cluster east was touched: %v", status)
			}
		}
		west := overview.Msg.GetClusters()[1]
		return west.GetEndpoints() == 1 && west.GetServices() == 1 && west.GetStatus() == "Connected"
	})
	explained, err := meshes.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{FromCluster: "west", FromZone: "a", Service: "catalog.shop"}))
	if err != nil || len(explained.Msg.GetLevels()) != 1 {
		t.Errorf("explain: %v, %v", explained, err)
	}
}

// F26: two agents of one cluster.
func TestSecondAgentIsRefused(t *testing.T) {
	c := start(t, "a", "b")
	source := c.join("a", cluster("west", "eu-west", "10.1.0.0/16"))
	client := pb.NewAgentServiceClient(c.agent("a", source))
	first, err := report(t, client, "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := report(t, client, "2"); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the second: %v", err)
	}
	first.update([]*pb.Object{service("west", "shop", "catalog")})
	again, err := report(t, client, "1") // it lost its stream and comes back
	if err != nil {
		t.Fatal(err)
	}
	if again.welcome.GetEpoch() != first.welcome.GetEpoch()+1 || len(again.welcome.GetHave()) != 1 {
		t.Errorf("welcome %v", again.welcome)
	}
	first.seq++
	first.stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Update{Update: &pb.Update{Epoch: first.welcome.GetEpoch(), Sequence: first.seq, Deletes: []string{"service/shop/catalog/west"}}}})
	if _, err := first.stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the ghost: %v", err)
	}
}

// T6: a stolen credential is revoked.
func TestRevokedCredentialEndsSessions(t *testing.T) {
	c := start(t, "a")
	source := c.join("a", cluster("west", "eu-west", "10.1.0.0/16"))
	conn := c.agent("a", source)
	r, err := report(t, pb.NewAgentServiceClient(conn), "1")
	if err != nil {
		t.Fatal(err)
	}
	clusters, _ := c.admin("a")
	_, csr := request(t)
	if _, err := pb.NewAgentServiceClient(conn).Rotate(t.Context(), &pb.RotateRequest{Csr: csr}); err != nil {
		t.Errorf("rotation before: %v", err)
	}
	if _, err := clusters.RotateCluster(t.Context(), connect.NewRequest(&pb.RotateClusterRequest{Id: "west", Revoke: true})); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := r.stream.Recv(); status.Code(err) != codes.PermissionDenied || time.Since(began) > 5*time.Second {
		t.Errorf("the session ended after %v with %v", time.Since(began), err)
	}
	if _, err := pb.NewAgentServiceClient(conn).Rotate(t.Context(), &pb.RotateRequest{Csr: csr}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("rotation after: %v", err)
	}
	c.join("a", cluster("west", "eu-west", "10.1.0.0/16")) // the way back
}

func TestDrainAndRemove(t *testing.T) {
	c := start(t, "a", "b", "c")
	source := c.join("a", cluster("west", "eu-west", "10.1.0.0/16"))
	r, err := report(t, pb.NewAgentServiceClient(c.agent("a", source)), "1")
	if err != nil {
		t.Fatal(err)
	}
	r.update([]*pb.Object{service("west", "shop", "catalog"), endpoints("west", "catalog", nil)})
	clusters, _ := c.admin("b")
	state, err := clusters.SetClusterState(t.Context(), connect.NewRequest(&pb.SetClusterStateRequest{Id: "west", State: pb.ClusterState_CLUSTER_STATE_DRAINED}))
	if err != nil || state.Msg.GetCluster().GetState() != pb.ClusterState_CLUSTER_STATE_DRAINED {
		t.Errorf("%v, %v", state, err)
	}
	if _, err := clusters.RemoveCluster(t.Context(), connect.NewRequest(&pb.RemoveClusterRequest{Id: "west"})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("removed although connected: %v", err)
	}
	removed, err := clusters.RemoveCluster(t.Context(), connect.NewRequest(&pb.RemoveClusterRequest{Id: "west", Force: true}))
	if err != nil || removed.Msg.GetRemovedObjects() < 4 {
		t.Errorf("%v, %v", removed, err)
	}
	if _, err := r.stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the session ended with %v", err)
	}
	list, err := clusters.ListClusters(t.Context(), connect.NewRequest(&pb.ListClustersRequest{}))
	if err != nil || len(list.Msg.GetItems()) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// N8, through the whole stack: a write at a follower while the leader is away.
func TestLeaderStopsAndWritesGoOn(t *testing.T) {
	c := start(t, "a", "b", "c")
	_, meshes := c.admin("a")
	overview, err := meshes.Overview(t.Context(), connect.NewRequest(&pb.OverviewRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	leader := overview.Msg.GetLeader()
	c.stop(leader)
	began := time.Now()
	for id := range c.stops {
		c.register(id, cluster("west", "eu-west", "10.1.0.0/16"))
		break
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the write took %v", took)
	}
}
