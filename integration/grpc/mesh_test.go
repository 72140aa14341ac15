package grpc

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/trust"
)

// The mesh of this package: east and west share a network, far is behind a gateway. Clients are in east, zone a.
type world struct {
	*harness.Mesh
	east, west, far *harness.Cluster
	agent           *realdeps.Process // of east
	certs           string            // the client's identity
}

// Agents are reached by a name that their certificates have.
const eastAgent, westAgent = "localhost:14612", "127.0.0.1:14613"

func newWorld(t *testing.T) *world {
	m := harness.New(t, harness.Options{Prefix: "127.46"})
	w := &world{Mesh: m}
	w.east = m.Cluster(harness.ClusterOptions{Name: "east", Region: "eu", Network: "lan"})
	w.west = m.Cluster(harness.ClusterOptions{Name: "west", Region: "us", Network: "lan"})
	w.far = m.Cluster(harness.ClusterOptions{Name: "far", Region: "ap"})
	w.east.AgentNames, w.east.AgentAddress = []string{"localhost"}, strings.Replace(eastAgent, "localhost", "127.0.0.1", 1)
	for _, c := range []*harness.Cluster{w.east, w.west, w.far} {
		c.Authority("--svid-ttl", "30s")
	}
	w.agent = w.east.StartAgent("--services", w.staticServices(t))
	for _, c := range []*harness.Cluster{w.west, w.far} {
		defer c.AwaitAgent(c.StartAgent("--services", c.Services(services...)))
	}
	w.east.AwaitAgent(w.agent)
	w.certs = filepath.Join(m.Dir, "certs")
	fetch := realdeps.Run(t, "svid-fetch", w.east.Binary("visitor"), nil, "svid", "fetch", "--workload-socket", w.east.WorkloadSocket, "--write", w.certs, "--watch")
	// The files have to have the control plane's roots before a client can ask a controller.
	fetch.Await(20*time.Second, func() error {
		for _, name := range []string{trust.FileSVID, "bundle." + harness.Plane + ".pem"} {
			if _, err := os.Stat(filepath.Join(w.certs, name)); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

var services = []string{"catalog.shop:grpc:9090:grpc"}

// staticServices are those of east, and two that somebody listed at the address of east-a, which is the first sidecar.
func (w *world) staticServices(t *testing.T) string {
	path := w.east.Services(append(services, "mirror.shop:grpc:9090:grpc", "pay.shop:grpc:9090:grpc")...)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for service, account := range map[string]string{"mirror": "catalog", "pay": "pay"} {
		text = fmt.Appendf(text, `---
apiVersion: periplus.io/v1
kind: Endpoints
metadata: {name: %s, namespace: shop}
spec:
  endpoints:
  - {name: static, address: %s, ports: {grpc: 15006}, identity: %q}
`, service, w.east.Host(21), w.east.ID(account))
	}
	return w.east.File("services.yaml", string(text))
}

// bootstrap prints a client's bootstrap with the command, into a file.
func (w *world) bootstrap(t *testing.T, name string, args ...string) string {
	args = append([]string{"grpc", "bootstrap", "--cluster", "east", "--name", name, "--region", "eu", "--zone", "a", "--certs", w.certs}, args...)
	path := filepath.Join(w.Dir, name+".json")
	if err := os.WriteFile(path, []byte(w.Periplus(args...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	spiffe     = "GRPC_EXPERIMENTAL_XDS_MTLS_SPIFFE=true"
	serverName = "GRPC_EXPERIMENTAL_XDS_SNI=true"
)

// server starts a gRPC server with a sidecar in front of it.
func (w *world) server(t *testing.T, c *harness.Cluster, name, zone string, labels ...string) *harness.Sidecar {
	t.Helper()
	return c.Sidecar(harness.SidecarOptions{
		Name: name, Service: "catalog.shop", Zone: zone, App: greeter(t, name), Port: 9090, Protocol: "grpc", Labels: labels,
	})
}

// testServer answers with its name and with who asked, as its sidecar says.
type testServer struct {
	testpb.UnimplementedTestServiceServer
	name string
}

func (s *testServer) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	caller := ""
	for _, value := range in.Get("x-forwarded-client-cert") {
		for part := range strings.SplitSeq(value, ";") {
			if uri, ok := strings.CutPrefix(part, "URI="); ok {
				caller = strings.Trim(uri, `"`)
			}
		}
	}
	return &testpb.SimpleResponse{Hostname: s.name, Username: caller}, nil
}

func greeter(t *testing.T, name string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, &testServer{name: name})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// metric is the sum of a metric's series at a process.
func metric(url, name string) (float64, error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	sum, found := 0.0, false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok && (rest[0] == ' ' || rest[0] == '{') {
			value, err := strconv.ParseFloat(rest[strings.LastIndex(rest, " ")+1:], 64)
			if err != nil {
				return 0, err
			}
			sum, found = sum+value, true
		}
	}
	if !found {
		err = fmt.Errorf("%s has no %s", url, name)
	}
	return sum, err
}
