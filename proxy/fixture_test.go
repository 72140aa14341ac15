package proxy

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// world is what the fake agent serves: resources by node ID. Immutable.
type world map[string]map[xds.Type]map[string]xds.Resource

func (w world) with(node string, t xds.Type, name string, body proto.Message) world {
	out := maps.Clone(w)
	if out == nil {
		out = world{}
	}
	types := maps.Clone(out[node])
	if types == nil {
		types = map[xds.Type]map[string]xds.Resource{}
	}
	names := maps.Clone(types[t])
	if names == nil {
		names = map[string]xds.Resource{}
	}
	names[name] = xds.NewResource(t, name, body)
	types[t], out[node] = names, types
	return out
}

type catalog string

func (c catalog) Get(w world, t xds.Type, name string) (xds.Resource, bool) {
	r, ok := w[string(c)][t][name]
	return r, ok
}

func (c catalog) Names(w world, t xds.Type) iter.Seq[string] { return maps.Keys(w[string(c)][t]) }

func (c catalog) Changed(old, now world) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		for _, w := range []world{old, now} {
			for t, names := range w[string(c)] {
				for name := range names {
					if old[string(c)][t][name].Version != now[string(c)][t][name].Version && !yield(t, name) {
						return
					}
				}
			}
		}
	}
}

// agent is a fake of a cluster's agent: xDS from a world, and announcements.
type agent struct {
	periplusv1.UnimplementedWorkloadServiceServer
	t       *testing.T
	ca      *trusttest.CA
	address string
	world   watch.Value[world]
	xds     *adsserver.Server[world]
	server  *grpc.Server

	mu        sync.Mutex
	announced map[string]periplusv1.Health // guarded by mu
}

func (a *agent) Latest() (world, <-chan struct{}) { return a.world.Get() }

func (a *agent) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

func (a *agent) Announce(stream grpc.BidiStreamingServer[periplusv1.AnnounceRequest, periplusv1.AnnounceResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil
		}
		a.mu.Lock()
		a.announced[request.GetName()] = request.GetHealth()
		a.mu.Unlock()
		if err := stream.Send(&periplusv1.AnnounceResponse{}); err != nil {
			return err
		}
	}
}

func (a *agent) health(name string) periplusv1.Health {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.announced[name]
}

func newAgent(t *testing.T) *agent {
	a := &agent{t: t, ca: trusttest.NewCA("eu-west.mesh"), announced: map[string]periplusv1.Health{}}
	a.start("127.0.0.1:0")
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start(address string) {
	a.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	a.address = listener.Addr().String()
	a.xds = adsserver.New(adsserver.Config[world]{State: a,
		Authorize: func(_ context.Context, _ adsserver.Peer, node *corev3.Node) (xds.Catalog[world], error) {
			return catalog(node.GetId()), nil
		}})
	options := append(ads.ServerOptions(), grpc.Creds(credentials.NewTLS(
		trust.ServerConfig(a.ca.Source("/periplus/agent", time.Hour), trust.AuthorizeAny))))
	a.server = grpc.NewServer(options...)
	a.xds.Register(a.server)
	periplusv1.RegisterWorkloadServiceServer(a.server, a)
	server := a.server
	go server.Serve(listener)
}

func (a *agent) stop() { a.server.Stop() }

func (a *agent) set(change func(world) world) { a.world.Set(change(a.world.Latest())) }

// running is a sidecar under test.
type running struct {
	admin string
	stop  context.CancelFunc
	done  chan error
}

func (a *agent) run(c Config, identity string) *running {
	a.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	c.Cluster, c.Bind, c.Network, c.Agent, c.AdminListener = "eu-west", netip.MustParseAddr("127.0.0.1"), "n1", a.address, listener
	c.Source = a.ca.Source(identity, time.Hour)
	c.DrainDelay = 50 * time.Millisecond
	c.Log = slog.New(slog.NewTextHandler(testWriter{a.t}, nil))
	ctx, cancel := context.WithCancel(a.t.Context())
	r := &running{admin: "http://" + listener.Addr().String(), stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- Run(ctx, c) }()
	a.t.Cleanup(func() { r.end(a.t) })
	return r
}

func (r *running) end(t *testing.T) {
	r.stop()
	select {
	case err, open := <-r.done:
		if open && err != nil {
			t.Errorf("Run: %v", err)
		}
		if open {
			close(r.done)
		}
	case <-time.After(20 * time.Second):
		t.Error("Run does not end")
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func get(url string) (int, string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (r *running) ready(t *testing.T) {
	t.Helper()
	eventually(t, "ready", func() bool { status, _ := get(r.admin + "/ready"); return status == 200 })
}

func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func address(port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}}}
}

func assignment(name string, ports ...uint16) *endpointv3.ClusterLoadAssignment {
	l := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Region: "eu"}}
	for _, port := range ports {
		l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(port)}}})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{l}}
}

func listener(name string, port uint16, direction corev3.TrafficDirection, hcm *hcmv3.HttpConnectionManager, tls proto.Message) *listenerv3.Listener {
	hcm.HttpFilters = []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})}}}
	chain := &listenerv3.FilterChain{Filters: []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(hcm)}}}}
	if tls != nil {
		chain.TransportSocket = &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(tls)}}
	}
	return &listenerv3.Listener{Name: name, Address: address(port), TrafficDirection: direction, FilterChains: []*listenerv3.FilterChain{chain}}
}

func routes(name, cluster string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			RetryPolicy: &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream,reset-before-request", NumRetries: wrapperspb.UInt32(2),
				RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{Name: "envoy.retry_host_predicates.previous_hosts",
					ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: packed(&previousv3.PreviousHostsPredicate{})}}}}}},
	}}}}}
}

// serverSide is the configuration of a sidecar that serves app on port.
func serverSide(w world, node string, port, app uint16, h2 bool) world {
	cluster := fmt.Sprintf("inbound|%d||", port)
	c := &clusterv3.Cluster{Name: cluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, LoadAssignment: assignment(cluster, app)}
	alpn := []string{"periplus-http/1.1"}
	if h2 {
		c.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{}
		alpn = []string{"h2"}
	}
	tls := &tlsv3.DownstreamTlsContext{RequireClientCertificate: wrapperspb.Bool(true), CommonTlsContext: &tlsv3.CommonTlsContext{AlpnProtocols: alpn}}
	hcm := &hcmv3.HttpConnectionManager{StatPrefix: "in", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes("in", cluster)}}
	name := fmt.Sprintf("inbound_http_%d", port)
	return w.with(node, xds.Cluster, cluster, c).with(node, xds.Listener, name, listener(name, port, corev3.TrafficDirection_INBOUND, hcm, tls))
}

const outboundCluster = "outbound|80||catalog.shop.svc.cluster.local"

// clientSide sends everything that comes to port to the sidecars at servers, and expects san there.
func clientSide(w world, node string, port uint16, san string, h2 bool, servers ...uint16) world {
	c := &clusterv3.Cluster{Name: outboundCluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}}
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{MaxRetries: wrapperspb.UInt32(100)}}}
	alpn := []string{"periplus-http/1.1"}
	if h2 {
		c.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{}
		alpn = []string{"h2"}
	}
	tls := &tlsv3.UpstreamTlsContext{Sni: "outbound_.80_._.catalog.shop.svc.cluster.local", CommonTlsContext: &tlsv3.CommonTlsContext{
		AlpnProtocols: alpn,
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: san}}}}}}}}}
	c.TransportSocket = &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(tls)}}
	hcm := &hcmv3.HttpConnectionManager{StatPrefix: "out", RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "outbound",
		ConfigSource: &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}}}}
	return w.with(node, xds.Cluster, outboundCluster, c).with(node, xds.Endpoints, outboundCluster, assignment(outboundCluster, servers...)).
		with(node, xds.Listener, "outbound_http", listener("outbound_http", port, corev3.TrafficDirection_OUTBOUND, hcm, nil)).
		with(node, xds.Route, "outbound", routes("outbound", outboundCluster))
}
