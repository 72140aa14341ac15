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
	"google.golang.org/grpc/credentials"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

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
