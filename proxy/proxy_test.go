package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/freeport"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
)

const (
	clientNode, serverNode = "sidecar~eu-west~cart", "sidecar~eu-west~catalog"
	catalogPath            = "/ns/shop/sa/catalog"
	catalogID              = "spiffe://eu-west.mesh" + catalogPath
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func portOf(t *testing.T, address string) uint16 {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(a.Port)
}

// mesh is two sidecars: cart calls catalog, which serves app.
type mesh struct {
	*agent
	cart, catalog *running
	out, in       uint16
}

func newMesh(t *testing.T, app uint16, h2 bool, change func(*Config)) *mesh {
	t.Helper()
	m := &mesh{agent: newAgent(t), out: freeport.Loopback().Port(), in: freeport.Loopback().Port()}
	m.set(func(w world) world {
		return clientSide(serverSide(w, serverNode, m.in, app, h2), clientNode, m.out, catalogID, h2, m.in)
	})
	server := Config{Name: "catalog", Service: "catalog.shop", HealthInterval: 20 * time.Millisecond,
		Inbound: []Inbound{{Service: "catalog.shop", PortName: "http", ServicePort: 80, Protocol: "http", EndpointPort: m.in, App: fmt.Sprintf("127.0.0.1:%d", app)}}}
	client := Config{Name: "cart", Service: "cart.shop", OutboundPort: m.out, Region: "eu"}
	if change != nil {
		change(&client)
	}
	m.catalog, m.cart = m.run(server, catalogPath), m.run(client, "/ns/shop/sa/cart")
	m.catalog.ready(t)
	m.cart.ready(t)
	return m
}

func (m *mesh) url() string { return fmt.Sprintf("http://127.0.0.1:%d/", m.out) }

func TestRequestFlowsOverMutualTLS(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s xfcc=%q", r.URL.Path, r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	defer app.Close()
	m := newMesh(t, portOf(t, app.Listener.Addr().String()), false, nil)
	if status, body := get(m.url() + "hello"); status != 200 || !strings.HasPrefix(body, "/hello") {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "healthy", func() bool { return m.health("catalog") == periplusv1.Health_HEALTH_HEALTHY })
	// A request is counted after its last byte has gone out, so the client may be here first.
	for _, want := range []string{"istio_requests_total{", `connection_security_policy="mutual_tls"`,
		`destination_principal="spiffe://eu-west.mesh/ns/shop/sa/catalog"`, `destination_service="catalog.shop.svc.cluster.local"`, `destination_region="eu"`} {
		eventually(t, "metrics with "+want, func() bool {
			_, metrics := get(m.cart.admin + "/stats/prometheus")
			return strings.Contains(metrics, want)
		})
	}
	for path, want := range map[string]string{
		"/config_dump": `"version_info"`, "/config_dump?include_eds": outboundCluster, "/clusters": outboundCluster + "::127.0.0.1",
		"/clusters?format=json": `"host_statuses"`, "/listeners": "outbound_http::127.0.0.1", "/certs": "spiffe://eu-west.mesh/ns/shop/sa/cart",
		"/server_info": `"LIVE"`, "/stats": "istio_requests_total", "/logging": "periplus", "/ready": "LIVE", "/debug/pprof/": "goroutine",
	} {
		if status, body := get(m.cart.admin + path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, lacks %s:\n%.600s", path, status, want, body)
		}
	}
}

func TestWrongIdentityIsNotTalkedTo(t *testing.T) {
	var reached atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer app.Close()
	m := newMesh(t, portOf(t, app.Listener.Addr().String()), false, nil)
	m.set(func(w world) world {
		return clientSide(w, clientNode, m.out, "spiffe://eu-west.mesh/ns/shop/sa/other", false, m.in)
	})
	eventually(t, "503", func() bool { status, _ := get(m.url()); return status == 503 })
	reached.Store(false)
	if status, body := get(m.url()); status != 503 || reached.Load() {
		t.Fatalf("%d %s, reached %v", status, body, reached.Load())
	}
}

func TestRefusedConfigurationKeepsTheLastGood(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer app.Close()
	m := newMesh(t, portOf(t, app.Listener.Addr().String()), false, nil)
	bad := &clusterv3.Cluster{Name: outboundCluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}}
	m.set(func(w world) world { return w.with(clientNode, xds.Cluster, outboundCluster, bad) })
	eventually(t, "NACK", func() bool {
		for _, stream := range m.xds.Streams() {
			for _, typ := range stream.Types {
				if stream.NodeID == clientNode && strings.Contains(fmt.Sprintf("%+v", typ), "ORIGINAL_DST is not supported") {
					return true
				}
			}
		}
		return false
	})
	if status, _ := get(m.url()); status != 200 {
		t.Fatalf("status %d", status)
	}
}

func TestBootFromDiskWithoutAPlane(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer app.Close()
	dir := t.TempDir()
	client := Config{Name: "cart", Service: "cart.shop", DataDir: dir}
	m := newMesh(t, portOf(t, app.Listener.Addr().String()), false, func(c *Config) { c.DataDir, client.OutboundPort = dir, c.OutboundPort })
	if status, _ := get(m.url()); status != 200 {
		t.Fatalf("status %d", status)
	}
	m.cart.end(t)
	m.stop()
	m.cart = m.run(client, "/ns/shop/sa/cart")
	m.cart.ready(t)
	if status, body := get(m.url()); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
}

// TestDrainFailsNoRequest stops one of two servers under load: with an agent that removes its endpoint when it says
// that it drains, and with one that does not, so that clients find nobody accepting.
func TestDrainFailsNoRequest(t *testing.T) {
	t.Run("endpoint removed", func(t *testing.T) { drainUnderLoad(t, true) })
	t.Run("endpoint stays", func(t *testing.T) { drainUnderLoad(t, false) })
}

func drainUnderLoad(t *testing.T, removed bool) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Millisecond)
		_, _ = io.Copy(w, r.Body)
	}))
	defer app.Close()
	m := newMesh(t, portOf(t, app.Listener.Addr().String()), false, nil)
	second := freeport.Loopback().Port()
	m.set(func(w world) world {
		return clientSide(serverSide(w, "sidecar~eu-west~catalog-2", second, portOf(t, app.Listener.Addr().String()), false), clientNode, m.out, catalogID, false, m.in, second)
	})
	other := m.run(Config{Name: "catalog-2", Service: "catalog.shop", Inbound: []Inbound{{Service: "catalog.shop", PortName: "http", ServicePort: 80, Protocol: "http",
		EndpointPort: second, App: app.Listener.Addr().String()}}}, catalogPath)
	other.ready(t)
	eventually(t, "announced", func() bool { return m.health("catalog") == periplusv1.Health_HEALTH_HEALTHY })

	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var done, failed atomic.Int64
	for range 8 {
		wait.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for ctx.Err() == nil {
				response, err := client.Post(m.url(), "text/plain", strings.NewReader("x"))
				if err == nil {
					var body []byte
					body, err = io.ReadAll(response.Body)
					response.Body.Close()
					if response.StatusCode != 200 {
						err = fmt.Errorf("status %d: %s", response.StatusCode, body)
					}
				}
				if err != nil {
					t.Log(err)
					failed.Add(1)
				}
				done.Add(1)
			}
		})
	}
	eventually(t, "load", func() bool { return done.Load() > 100 })
	m.catalog.stop()
	eventually(t, "draining", func() bool { return m.health("catalog") == periplusv1.Health_HEALTH_DRAINING })
	if removed {
		m.set(func(w world) world {
			return w.with(clientNode, xds.Endpoints, outboundCluster, assignment(outboundCluster, second))
		})
	}
	m.catalog.end(t)
	before := done.Load()
	eventually(t, "load goes on", func() bool { return done.Load() > before+100 })
	cancel()
	wait.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), done.Load())
	}
}

func TestListenerThatCannotBeBoundIsTriedAgain(t *testing.T) {
	a := newAgent(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.set(func(w world) world {
		return clientSide(w, clientNode, portOf(t, taken.Addr().String()), catalogID, false, 1)
	})
	r := a.run(Config{Name: "cart", Service: "cart.shop"}, "/ns/shop/sa/cart")
	eventually(t, "unbound", func() bool {
		_, body := get(r.admin + "/stats")
		return strings.Contains(body, "periplus_proxy_listeners_unbound: 1")
	})
	if status, _ := get(r.admin + "/ready"); status != 503 {
		t.Errorf("ready without its listener: %d", status)
	}
	taken.Close()
	r.ready(t)
}

func TestQuitQuitQuit(t *testing.T) {
	a := newAgent(t)
	a.set(func(w world) world { return clientSide(w, clientNode, freeport.Loopback().Port(), catalogID, false, 1) })
	r := a.run(Config{Name: "cart", Service: "cart.shop"}, "/ns/shop/sa/cart")
	r.ready(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Post(r.admin+"/quitquitquit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	select {
	case err := <-r.done:
		if err != nil {
			t.Error(err)
		}
		close(r.done)
	case <-time.After(10 * time.Second):
		t.Fatal("still there")
	}
}

func TestGRPCThroughBothSidecars(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app, checks := grpc.NewServer(), health.NewServer()
	healthv1.RegisterHealthServer(app, checks)
	go app.Serve(listener)
	defer app.Stop()
	m := newMesh(t, portOf(t, listener.Addr().String()), true, nil)
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", m.out), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthv1.NewHealthClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answer, err := client.Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("unary: %v %v", answer, err)
	}
	if _, err := client.Check(ctx, &healthv1.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Fatalf("status of the application: %v", err)
	}
	streaming, stop := context.WithCancel(ctx)
	stream, err := client.Watch(streaming, &healthv1.HealthCheckRequest{Service: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{healthv1.HealthCheckResponse_SERVICE_UNKNOWN, healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING} {
		if want != healthv1.HealthCheckResponse_SERVICE_UNKNOWN {
			checks.SetServingStatus("s", want)
		}
		answer, err := stream.Recv()
		if err != nil || answer.GetStatus() != want {
			t.Fatalf("stream: %v %v, want %v", answer, err, want)
		}
	}
	stop()
	m.set(func(w world) world {
		return w.with(clientNode, xds.Endpoints, outboundCluster, assignment(outboundCluster))
	})
	eventually(t, "UNAVAILABLE from the proxy", func() bool {
		_, err := client.Check(ctx, &healthv1.HealthCheckRequest{})
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "no healthy upstream")
	})
}

func TestConfigIsChecked(t *testing.T) {
	if err := Run(t.Context(), Config{}); err == nil || errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A mistake that one request meets does not end the sidecar.
func TestAPanicEndsItsConnectionAlone(t *testing.T) {
	var log strings.Builder
	l := &listeners{
		log: slog.New(slog.NewTextHandler(&log, nil)), ctx: t.Context(), conns: map[net.Conn]struct{}{},
		serve: func(context.Context, net.Conn, *config.Listener) { panic("a mistake of ours") },
	}
	near, far := net.Pipe()
	l.serveConn(near, &config.Listener{Name: "l"})
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection stays: %v", err)
	}
	if n, _ := l.count(); n != 0 || !strings.Contains(log.String(), "a mistake of ours") {
		t.Errorf("%d connections, log %q", n, log.String())
	}
}

// After the drain's time a connection ends also if closing it would not end it, as when the kernel moves its bytes.
func TestWaitCutsConnections(t *testing.T) {
	life, cut := context.WithCancel(t.Context())
	l := &listeners{ctx: life, cut: cut, conns: map[net.Conn]struct{}{}}
	l.serve = func(ctx context.Context, _ net.Conn, _ *config.Listener) { <-ctx.Done() }
	near, _ := net.Pipe()
	l.running.Go(func() { l.serveConn(near, &config.Listener{Name: "l"}) })
	over, end := context.WithCancel(t.Context())
	end()
	l.wait(over)
}

// Without the TLS that a cluster asks for not even its health is asked.
func TestRefusedTLSIsNotChecked(t *testing.T) {
	s := &sidecar{clusters: forward.NewClusters(forward.ClustersConfig{})}
	s.clusters.Update(&config.Config{Clusters: map[string]*config.Cluster{"c": {
		Name: "c", Settings: &config.Settings{Name: "c", TLS: &config.UpstreamTLS{}},
	}}})
	app := httptest.NewServer(nil)
	defer app.Close()
	if conn, err := s.dialCheck(t.Context(), "c", app.Listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("it is dialled in plain text")
	}
}
