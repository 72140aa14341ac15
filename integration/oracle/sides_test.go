package oracle

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	// The types that the listeners hold.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy"
)

// listeners of each side: fields of the HTTP connection manager, by name, in the order of their ports.
var listeners = []struct{ name, yaml string }{
	{"main", ``},
	{"edge", `{normalize_path: true, merge_slashes: true, server_name: edge}`},
	{"upgrades", `{upgrade_configs: [{upgrade_type: websocket}], preserve_external_request_id: true}`},
	{"slow", `{request_timeout: 0.3s, stream_idle_timeout: 0.6s, common_http_protocol_options: {idle_timeout: 1s}}`},
	{"small", `{max_request_headers_kb: 8}`},
}

func listenerPort(name string) int {
	for i, l := range listeners {
		if l.name == name {
			return 15000 + i
		}
	}
	panic("no listener is named " + name)
}

// The nodes, and where they listen.
const (
	envoyNode, goNode       = "envoy", "sidecar~oracle~go"
	envoyAddress, goAddress = "127.45.0.2", "127.45.0.1"
)

// logFormat has the names that the Go sidecar's JSON format has.
const logFormat = `{request_id: "%REQ(X-REQUEST-ID)%", response_flags: "%RESPONSE_FLAGS%", response_code_details: "%RESPONSE_CODE_DETAILS%"}`

// listenersOf a node differ from the other's in their address alone.
func listenersOf(t *testing.T, address, accessLog string) map[string]xds.Resource {
	out := map[string]xds.Resource{}
	for _, l := range listeners {
		extra := strings.TrimSuffix(strings.TrimPrefix(l.yaml, "{"), "}")
		if extra != "" {
			extra = ", " + extra
		}
		pb := &listenerv3.Listener{}
		decode(t, fmt.Sprintf(`
name: %s
traffic_direction: OUTBOUND
address: {socket_address: {address: %s, port_value: %d}}
filter_chains:
- filters:
  - name: http
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: %s,
      rds: {route_config_name: outbound, config_source: {ads: {}, resource_api_version: V3}},
      access_log: [{name: file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
        path: %s, log_format: {json_format: %s}}}],
      http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]%s}
`, l.name, address, listenerPort(l.name), l.name, accessLog, logFormat, extra), pb)
		out[l.name] = xds.NewResource(xds.Listener, l.name, pb)
	}
	return out
}

func makeWorld(t *testing.T, cases []testCase, accessLog string) world {
	w := world{common: resources{}, listeners: map[string]map[string]xds.Resource{
		envoyNode: listenersOf(t, envoyAddress, accessLog), goNode: listenersOf(t, goAddress, accessLog),
	}}
	table := &routev3.RouteConfiguration{Name: "outbound"}
	for i := range cases {
		table.VirtualHosts = append(table.VirtualHosts, cases[i].add(t, w.common))
	}
	w.common.add(xds.Route, table.Name, table)
	return w
}

// side is one of the two that are compared.
type side struct {
	name, address string
	logs          *logs
}

// logs are the lines of an access log, by request ID.
type logs struct {
	mu      sync.Mutex
	lines   map[string]logLine
	partial []byte
}

type logLine struct {
	ID      string `json:"request_id"`
	Flags   string `json:"response_flags"`
	Details string `json:"response_code_details"`
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		end := strings.IndexByte(string(l.partial), '\n')
		if end < 0 {
			return len(p), nil
		}
		var line logLine
		if json.Unmarshal(l.partial[:end], &line) == nil && line.ID != "" {
			l.lines[line.ID] = line
		}
		l.partial = l.partial[end+1:]
	}
}

// of waits a little for the line of a request.
func (l *logs) of(id string) (logLine, bool) {
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		line, ok := l.lines[id]
		l.mu.Unlock()
		if ok || time.Now().After(deadline) {
			return line, ok
		}
	}
}

func startEnvoy(t *testing.T, p *plane, accessLog string) *side {
	t.Helper()
	admin := realdeps.Address()
	host, port := split(admin)
	planeHost, planePort := split(p.open)
	bootstrap := fmt.Sprintf(`
node: {id: %s, cluster: oracle}
admin: {address: {socket_address: {address: %s, port_value: %s}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: plane}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: plane
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: plane, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, envoyNode, host, port, planeHost, planePort)
	if err := os.WriteFile(accessLog, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	realdeps.StartEnvoy(t, "envoy", "", admin, []byte(bootstrap), "--file-flush-interval-msec", "5")
	s := &side{name: "envoy", address: envoyAddress, logs: &logs{lines: map[string]logLine{}}}
	follow(t, accessLog, s.logs)
	return s
}

// follow copies what is appended to a file.
func follow(t *testing.T, path string, to io.Writer) {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer file.Close()
		reader := bufio.NewReader(file)
		for ctx.Err() == nil {
			if n, _ := io.Copy(to, reader); n == 0 {
				time.Sleep(3 * time.Millisecond)
			}
		}
	}()
	t.Cleanup(func() { <-done })
}

func split(address string) (host, port string) {
	i := strings.LastIndexByte(address, ':')
	return address[:i], address[i+1:]
}

func startGo(t *testing.T, p *plane) *side {
	t.Helper()
	s := &side{name: "go", address: goAddress, logs: &logs{lines: map[string]logLine{}}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- proxy.Run(ctx, proxy.Config{
			Name: "go", Cluster: "oracle", Service: "oracle.test", Bind: netip.MustParseAddr(goAddress), Region: "eu",
			Source: p.ca.Source("/ns/test/sa/oracle", time.Hour), Agent: p.secure, AccessLog: s.logs, AccessLogJSON: true,
			AdminListener: listen(t, goAddress+":15090"), DrainTime: time.Second, DrainDelay: time.Millisecond,
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// start runs everything and waits until both sides serve the last listener.
func start(t *testing.T, cases []testCase) (*upstreams, []*side) {
	t.Helper()
	u := startUpstreams(t, cases)
	accessLog := filepath.Join(t.TempDir(), "access.log")
	p := startPlane(t, makeWorld(t, cases, accessLog))
	sides := []*side{startEnvoy(t, p, accessLog), startGo(t, p)}
	for _, s := range sides {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			refused := p.refused()
			for node, why := range refused {
				t.Fatalf("%s refuses: %s", node, why)
			}
			if s.serves(cases) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s serves nothing", s.name)
			}
		}
	}
	return u, sides
}

// serves tells whether every listener answers and has its routes.
func (s *side) serves(cases []testCase) bool {
	for _, l := range listeners {
		link, err := dial(s.at(l.name), "")
		if err != nil {
			return false
		}
		r := request{method: "GET", path: "/", host: "ready.test"}
		got := link.roundTrip(r.bytes("ready"), "GET", "")
		link.conn.Close()
		if got.status != 204 {
			return false
		}
	}
	return true
}

func (s *side) at(listener string) string {
	return fmt.Sprintf("%s:%d", s.address, listenerPort(listener))
}
