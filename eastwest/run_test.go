package eastwest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// world is the state of a control plane that serves these resources to whoever asks.
type world map[xds.Type]map[string]xds.Resource

type worldState struct{ watch.Value[world] }

func (s *worldState) Latest() (world, <-chan struct{}) { return s.Get() }

func (s *worldState) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

type worldCatalog struct{}

func (worldCatalog) Get(w world, t xds.Type, name string) (xds.Resource, bool) {
	r, ok := w[t][name]
	return r, ok
}

func (worldCatalog) Names(w world, t xds.Type) iter.Seq[string] { return maps.Keys(w[t]) }

func (worldCatalog) Changed(old, now world) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		for _, w := range []world{old, now} {
			for t, resources := range w {
				for name := range resources {
					if !yield(t, name) {
						return
					}
				}
			}
		}
	}
}

func worldOf(all []named) world {
	w := world{}
	for _, r := range all {
		if w[r.t] == nil {
			w[r.t] = map[string]xds.Resource{}
		}
		w[r.t][r.name] = xds.NewResource(r.t, r.name, r.body)
	}
	return w
}

// agent serves xDS and takes announcements.
type agent struct {
	periplusv1.UnimplementedWorkloadServiceServer
	address   string
	state     worldState
	announced watch.Value[*periplusv1.AnnounceRequest]
	stop      func()
}

func (a *agent) Announce(stream periplusv1.WorkloadService_AnnounceServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		a.announced.Set(request)
		if err := stream.Send(&periplusv1.AnnounceResponse{}); err != nil {
			return err
		}
	}
}

func startAgent(t *testing.T, m mesh) *agent {
	t.Helper()
	l, at := listen(t)
	a := &agent{address: at.String()}
	server := grpc.NewServer(append(ads.ServerOptions(),
		grpc.Creds(credentials.NewTLS(trust.ServerConfig(m.west.Source("/periplus/agent", time.Hour), trust.AuthorizeAny))))...)
	xdsServer := adsserver.New(adsserver.Config[world]{
		State: &a.state,
		Authorize: func(_ context.Context, _ adsserver.Peer, node *corev3.Node) (xds.Catalog[world], error) {
			if node.GetMetadata().GetFields()["GATEWAY_PORT"].GetNumberValue() == 0 {
				return nil, errors.New("node declares no gateway port")
			}
			return worldCatalog{}, nil
		},
	})
	xdsServer.Register(server)
	periplusv1.RegisterWorkloadServiceServer(server, a)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	a.stop = sync.OnceFunc(func() { server.Stop(); running.Wait() })
	t.Cleanup(a.stop)
	return a
}

// running is a gateway as its users see it.
type running struct {
	address, admin string
	stop           context.CancelFunc
	done           chan error
}

func startGateway(t *testing.T, c Config) *running {
	t.Helper()
	l, admin := listen(t)
	c.AdminListener = l
	c.Port = unusedAddress(t).Port()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{address: netip.AddrPortFrom(c.Bind, c.Port).String(), admin: "http://" + admin.String(), stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- Run(ctx, c) }()
	t.Cleanup(func() { cancel(); http.DefaultClient.CloseIdleConnections() })
	return r
}

func (r *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	response, err := http.Get(r.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (r *running) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "ready", func() bool { code, _ := r.get(t, "/ready"); return code == http.StatusOK })
}

func (r *running) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end")
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func runConfig(t *testing.T, m mesh, agentAddress string) Config {
	c := testConfig(t)
	c.WorkloadSocket, c.Source = "", m.west.Source("/periplus/gateway", time.Hour)
	c.Agent, c.DataDir = agentAddress, t.TempDir()
	c.DrainTime, c.DrainGrace = 5*time.Second, 300*time.Millisecond
	return c
}

func TestRun(t *testing.T) {
	m := newMesh()
	a := startAgent(t, m)
	a.state.Set(worldOf(resources(loopback(1), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})))
	r := startGateway(t, runConfig(t, m, a.address))
	r.awaitReady(t)
	if got, err := m.call(r.address, serverName("catalog")); err != nil || got == "" {
		t.Fatalf("got %q %v", got, err)
	}
	eventually(t, "announced as healthy", func() bool { return a.announced.Latest().GetHealth() == periplusv1.Health_HEALTH_HEALTHY })
	if got := a.announced.Latest(); got.GetGateway().GetPort() == 0 || got.GetAddress() != "127.0.0.1" || got.GetNetwork() != "net-west" {
		t.Errorf("announced %v", got)
	}
	// A service that is withdrawn is not reachable any more; a new one is.
	a.state.Set(worldOf(resources(loopback(1), map[string][]netip.AddrPort{"cart": {m.backend(t, "cart")}})))
	eventually(t, "the new service is reachable", func() bool { _, err := m.call(r.address, serverName("cart")); return err == nil })
	eventually(t, "the old one is not", func() bool { _, err := m.call(r.address, serverName("catalog")); return err != nil })
	var dump configDump
	_, text := r.get(t, "/config_dump")
	if err := json.Unmarshal([]byte(text), &dump); err != nil || dump.Source != "agent" || len(dump.Services) != 1 || len(dump.Services[0].Endpoints) != 1 {
		t.Errorf("config_dump: %v %s", err, text)
	}
	for _, path := range []string{"/healthz", "/clusters", "/stats/prometheus"} {
		if code, text := r.get(t, path); code != http.StatusOK || text == "" {
			t.Errorf("%s: %d", path, code)
		}
	}
	r.stop()
	r.awaitEnd(t)
}

// D11: with no control plane at all, and no identity either, the gateway serves what it knew.
func TestBootsFromDisk(t *testing.T) {
	m := newMesh()
	a := startAgent(t, m)
	a.state.Set(worldOf(resources(loopback(1), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})))
	c := runConfig(t, m, a.address)
	c.DrainGrace = time.Millisecond
	first := startGateway(t, c)
	first.awaitReady(t)
	first.stop()
	first.awaitEnd(t)
	a.stop()

	c.Metrics = nil
	c.Source, c.WorkloadSocket = nil, "unix://"+t.TempDir()+"/none"
	second := startGateway(t, c)
	begin := time.Now()
	second.awaitReady(t)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := m.call(second.address, serverName("catalog")); err != nil {
		t.Error(err)
	}
	second.stop()
	second.awaitEnd(t)
}

// Clients that follow the announced state lose no request while the gateway drains: no new connection fails before
// the agent knows, and an open one ends by itself.
func TestDrain(t *testing.T) {
	m := newMesh()
	a := startAgent(t, m)
	a.state.Set(worldOf(resources(loopback(1), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})))
	r := startGateway(t, runConfig(t, m, a.address))
	r.awaitReady(t)
	raw, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	open := tls.Client(raw, m.clientConfig(serverName("catalog")))
	if err := open.Handshake(); err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	var calls atomic.Int64
	for range 4 {
		clients.Go(func() {
			for a.announced.Latest().GetHealth() != periplusv1.Health_HEALTH_DRAINING {
				if _, err := m.call(r.address, serverName("catalog")); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
			}
			// What was on its way when the news came.
			if _, err := m.call(r.address, serverName("catalog")); err != nil {
				t.Errorf("a call right after the news failed: %v", err)
			}
		})
	}
	eventually(t, "calls", func() bool { return calls.Load() > 20 })
	r.stop()
	clients.Wait()
	if code, _ := r.get(t, "/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("/ready: got %d while draining", code)
	}
	eventually(t, "no new connections", func() bool { _, err := m.call(r.address, serverName("catalog")); return err != nil })
	select {
	case <-r.done:
		t.Fatal("ended though a connection is open")
	default:
	}
	go func() { _, _ = open.Write([]byte("last words")) }()
	if _, err := io.ReadFull(open, make([]byte, 40)); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	open.Close()
	r.awaitEnd(t)
}

// A connection that does not end is closed when the drain time is over.
func TestDrainTime(t *testing.T) {
	m := newMesh()
	a := startAgent(t, m)
	a.state.Set(worldOf(resources(loopback(1), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})))
	c := runConfig(t, m, a.address)
	c.DrainTime, c.DrainGrace = 500*time.Millisecond, 50*time.Millisecond
	r := startGateway(t, c)
	r.awaitReady(t)
	raw, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	open := tls.Client(raw, m.clientConfig(serverName("catalog")))
	if err := open.Handshake(); err != nil {
		t.Fatal(err)
	}
	// A page in a browser must not be able to.
	forged, _ := http.NewRequest(http.MethodPost, r.admin+"/drain", nil)
	forged.Header.Set("Origin", "https://page.example")
	refused, err := http.DefaultClient.Do(forged)
	if err != nil || refused.StatusCode != http.StatusForbidden {
		t.Fatalf("drain by a page of another origin: %v %v", refused, err)
	}
	refused.Body.Close()
	begin := time.Now()
	response, err := http.Post(r.admin+"/drain", "", nil)
	if err != nil || response.StatusCode != http.StatusAccepted {
		t.Fatalf("drain: %v %v", response, err)
	}
	response.Body.Close()
	r.awaitEnd(t)
	if took := time.Since(begin); took < 400*time.Millisecond || took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"name": func(c *Config) { c.Name = "" }, "bind": func(c *Config) { c.Bind = netip.Addr{} },
		"identity": func(c *Config) { c.WorkloadSocket = "" }, "plane": func(c *Config) { c.Agent = "" },
		"plane's trust domain": func(c *Config) { c.Controllers = []string{"x:1"} },
	} {
		c := testConfig(t)
		change(&c)
		if err := Run(t.Context(), c); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}
