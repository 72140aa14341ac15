package eastwest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	snicluster "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serverName(service string) string {
	return "outbound_.80_._." + service + ".shop.svc.cluster.local"
}

func packed(m proto.Message) *anypb.Any {
	made, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return made
}

func networkFilter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(m)}}
}

func socket(at netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: at.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())},
	}}}
}

func gatewayListener(at netip.AddrPort) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: listenerName, Address: socket(at),
		ListenerFilters: []*listenerv3.ListenerFilter{{Name: "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: packed(&tlsinspector.TlsInspector{})}}},
		FilterChains: []*listenerv3.FilterChain{{
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls"},
			Filters: []*listenerv3.Filter{
				networkFilter("envoy.filters.network.sni_cluster", &snicluster.SniCluster{}),
				networkFilter("envoy.filters.network.tcp_proxy", &tcpproxy.TcpProxy{StatPrefix: "eastwest",
					ClusterSpecifier: &tcpproxy.TcpProxy_Cluster{Cluster: "BlackHoleCluster"}}),
			},
		}},
	}
}

func serviceCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}},
		ConnectTimeout: durationpb.New(time.Second), LbPolicy: clusterv3.Cluster_ROUND_ROBIN,
	}
}

func serviceEndpoints(name string, at ...netip.AddrPort) *endpointv3.ClusterLoadAssignment {
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, a := range at {
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socket(a)}},
		})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}}
}

// named is a resource with its name and type.
type named struct {
	t    xds.Type
	name string
	body proto.Message
}

func resources(listen netip.AddrPort, services map[string][]netip.AddrPort) []named {
	var all []named
	for service, at := range services {
		name := serverName(service)
		all = append(all, named{xds.Cluster, name, serviceCluster(name)}, named{xds.Endpoints, name, serviceEndpoints(name, at...)})
	}
	return append(all, named{xds.Listener, listenerName, gatewayListener(listen)})
}

func update(r named) adsclient.Update {
	made := xds.NewResource(r.t, r.name, r.body)
	body, _ := proto.MarshalOptions{Deterministic: true}.Marshal(r.body)
	return adsclient.Update{Type: r.t, Upserts: []adsclient.Item{{Name: r.name, Version: made.Version, Body: body}}}
}

func loopback(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
}

func listen(t testing.TB) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback(0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// unusedAddress refuses connections.
func unusedAddress(t testing.TB) netip.AddrPort {
	l, at := listen(t)
	l.Close()
	return at
}

func testConfig(t testing.TB) Config {
	c := Config{
		Name: "gw", Cluster: "west", Bind: netip.MustParseAddr("127.0.0.1"), WorkloadSocket: "unix:///unused", Agent: "unused:1",
		Network: "net-west", Region: "west", Zone: "west-1", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return c
}

// serveTable runs the data path alone, on a table of these services.
func serveTable(t testing.TB, c Config, services map[string][]netip.AddrPort) (*gateway, string) {
	t.Helper()
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	g := newGateway(c, func(*table) {})
	l, err := splice.Listen(loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	at := l.Address()
	for _, r := range resources(at, services) {
		if err := g.tables.apply(update(r)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.accept(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		l.Close()
		<-done
		g.open.Wait()
		g.pipes.Close()
		if n := g.metrics.active.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return g, at.String()
}

// mesh is two trust domains that know each other: clients are in east, services in west.
type mesh struct{ east, west *trusttest.CA }

func newMesh() mesh { return mesh{trusttest.NewCA("east.mesh"), trusttest.NewCA("west.mesh")} }

func (m mesh) clientConfig(name string) *tls.Config {
	return &tls.Config{
		ServerName: name, InsecureSkipVerify: true, Certificates: []tls.Certificate{*m.east.SVID("/ns/shop/sa/visitor", time.Hour).Certificate},
		VerifyConnection: func(s tls.ConnectionState) error { return chains(m.west.Root(), s.PeerCertificates[0]) },
	}
}

func chains(root, leaf *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

// backend ends mTLS as service, greets with its name and the client's identity, and echoes.
func (m mesh) backend(t testing.TB, service string) netip.AddrPort {
	l, at := listen(t)
	certificate := m.west.SVID("/ns/shop/sa/"+service, time.Hour).Certificate
	secured := tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error { return chains(m.east.Root(), s.PeerCertificates[0]) },
	})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := secured.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				if conn.(*tls.Conn).Handshake() != nil {
					return
				}
				fmt.Fprintf(conn, "%s %s\n", service, conn.(*tls.Conn).ConnectionState().PeerCertificates[0].URIs[0])
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return at
}

// call makes one mTLS connection through the gateway and returns the greeting.
func (m mesh) call(gateway, name string) (string, error) {
	raw, err := net.Dial("tcp", gateway)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn := tls.Client(raw, m.clientConfig(name))
	if err := conn.Handshake(); err != nil {
		return "", err
	}
	if err := conn.CloseWrite(); err != nil {
		return "", err
	}
	greeting, err := io.ReadAll(conn)
	return string(greeting), err
}

func (g *gateway) rejected(reason string) float64 {
	return count(g.metrics.rejected[reason])
}

func (g *gateway) closed(reason splice.Reason) float64 {
	return count(g.metrics.closed[reason])
}

func count(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

// settle waits until every connection so far has ended and been counted.
func (g *gateway) settle() {
	for g.metrics.active.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
}
