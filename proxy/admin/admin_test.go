package admin_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/admin"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// console is the interface with what was asked of it.
type console struct {
	http.Handler
	level  slog.LevelVar
	state  string
	ready  bool
	events []string
}

func newConsole(t *testing.T) *console {
	t.Helper()
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"code"})
	registry.MustRegister(counter)
	counter.WithLabelValues("200").Inc()
	clusters := forward.NewClusters(forward.ClustersConfig{})
	clusters.Update(&config.Config{Clusters: map[string]*config.Cluster{"up": {Name: "up", Settings: &config.Settings{Name: "up"},
		Endpoints: &config.Endpoints{Overprovisioning: 140, Localities: []config.Locality{{Region: "eu", Zone: "a", Weight: 1, Endpoints: []config.Endpoint{
			{Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}, {Address: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1, Health: config.Draining}}}}}}}})
	// A cluster may carry what this binary does not know.
	body, err := proto.Marshal(&clusterv3.Cluster{Name: "up", Metadata: &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{
		"x": {TypeUrl: "type.googleapis.com/example.Unknown", Value: []byte{10, 1, 'x'}}}}})
	if err != nil {
		t.Fatal(err)
	}
	c := &console{state: "LIVE", ready: true}
	event := func(name string) func() { return func() { c.events = append(c.events, name) } }
	c.Handler = admin.Handler(admin.Config{
		Gatherer: registry, Level: &c.level, Node: &corev3.Node{Id: "n"}, Began: time.Now(), Source: trusttest.NewCA("eu.mesh").Source("/cart", time.Hour),
		Resources: func(typ xds.Type) []config.Resource {
			if typ != xds.Cluster {
				return nil
			}
			return []config.Resource{{Name: "up", Version: "7", Body: body}}
		},
		View: clusters.View, Bound: func() map[string]netip.AddrPort {
			return map[string]netip.AddrPort{"out": netip.MustParseAddrPort("127.0.0.1:15001")}
		},
		State: func() (string, bool) { return c.state, c.ready }, Plane: func() string { return "agent" },
		Drain: event("drain"), Quit: event("quit"), Failed: func(failed bool) {
			if failed {
				event("failed")()
			} else {
				event("well")()
			}
		},
	})
	return c
}

func (c *console) do(method, target string, header ...string) (int, string) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, target, nil)
	if strings.HasPrefix(target, "/") {
		r.Host = "127.0.0.1:15000"
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	c.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestPagesShowWhatIs(t *testing.T) {
	c := newConsole(t)
	for target, want := range map[string]string{
		"/": "/quitquitquit (POST)", "/help": "/config_dump", "/ready": "LIVE", "/server_info": `"id":`,
		"/config_dump": `"version_info":`, "/config_dump?include_eds": "EndpointsConfigDump",
		"/config_dump?resource=dynamic_active_clusters": "ClustersConfigDump.DynamicCluster", "/config_dump?resource=dynamic_listeners": "{",
		"/clusters": "up::10.0.0.2:80::health_flags::/failed_eds_health", "/clusters?format=json": `"UNHEALTHY"`,
		"/listeners": "out::127.0.0.1:15001", "/listeners?format=json": `"port_value":15001`, "/certs": "spiffe://eu.mesh/cart",
		"/stats": "requests_total{code=200}: 1", "/stats?format=prometheus": `requests_total{code="200"} 1`,
		"/stats/prometheus": `requests_total{code="200"} 1`, "/metrics": `requests_total{code="200"} 1`,
		"/logging": "periplus: info", "/debug/pprof/cmdline": "",
	} {
		if code, body := c.do("GET", target); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d lacks %q: %.300s", target, code, want, body)
		}
	}
	if _, body := c.do("GET", "/config_dump"); !strings.Contains(body, "example.Unknown") {
		t.Errorf("an extension that is not known is left out: %s", body)
	}
	if _, body := c.do("GET", "/config_dump?resource=dynamic_listeners"); strings.Contains(body, "Dump") {
		t.Errorf("asked for listeners, got %s", body)
	}
	for target, want := range map[string]int{"/config_dump?mask=configs": 400, "/config_dump?resource=secrets": 404} {
		if code, _ := c.do("GET", target); code != want {
			t.Errorf("%s: %d, want %d", target, code, want)
		}
	}
	if _, body := c.do("GET", "/stats?filter=nothing"); body != "" {
		t.Errorf("filter: %q", body)
	}
	c.state, c.ready = "DRAINING", false
	if code, body := c.do("GET", "/ready"); code != 503 || body != "DRAINING\n" {
		t.Errorf("%d %q", code, body)
	}
}

func TestOnlyPostsOfTheSameOriginChange(t *testing.T) {
	c := newConsole(t)
	for _, path := range []string{"/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok"} {
		if code, _ := c.do("GET", path); code != 405 {
			t.Errorf("GET %s: %d", path, code)
		}
		if code, _ := c.do("POST", path, "Sec-Fetch-Site", "cross-site"); code != 403 {
			t.Errorf("cross-site %s: %d", path, code)
		}
		if code, _ := c.do("POST", "http://rebound.example"+path, "Sec-Fetch-Site", "same-origin"); code != 403 {
			t.Errorf("a name that leads here %s: %d", path, code)
		}
	}
	if len(c.events) != 0 {
		t.Fatalf("%v happened", c.events)
	}
	for _, path := range []string{"/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/quitquitquit"} {
		if code, _ := c.do("POST", path); code != 200 {
			t.Errorf("POST %s: %d", path, code)
		}
	}
	if got := strings.Join(c.events, " "); got != "drain failed well quit" {
		t.Error(got)
	}
}

func TestLevelOfTheLogChanges(t *testing.T) {
	c := newConsole(t)
	if code, body := c.do("POST", "/logging?level=warning"); code != 200 || c.level.Level() != slog.LevelWarn || !strings.Contains(body, "warn") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := c.do("POST", "/logging?level=loud"); code != 400 || c.level.Level() != slog.LevelWarn {
		t.Errorf("%d", code)
	}
}
