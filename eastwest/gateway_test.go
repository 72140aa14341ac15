package eastwest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
)

// mTLS is between client and service: each sees the other's certificate, though neither the gateway nor its
// configuration has any.
func TestPassesThrough(t *testing.T) {
	m := newMesh()
	g, at := serveTable(t, testConfig(t), map[string][]netip.AddrPort{
		"catalog": {m.backend(t, "catalog")}, "cart": {m.backend(t, "cart")},
	})
	for _, service := range []string{"catalog", "cart", "catalog"} {
		got, err := m.call(at, serverName(service))
		if want := service + " spiffe://east.mesh/ns/shop/sa/visitor\n"; err != nil || got != want {
			t.Errorf("got %q %v, want %q", got, err, want)
		}
	}
	g.settle()
	if g.closed(splice.Closed) != 3 || g.metrics.sent.Load() == 0 || g.metrics.received.Load() == 0 {
		t.Errorf("got %v closed, %d bytes sent, %d received", g.closed(splice.Closed), g.metrics.sent.Load(), g.metrics.received.Load())
	}
}

// The gateway is no open relay (T11): names that are not exported, whatever they look like, reach nobody.
func TestT11RefusesUnknownNames(t *testing.T) {
	m := newMesh()
	victim, reached := listen(t)
	go func() {
		if conn, err := victim.Accept(); err == nil {
			conn.Close()
			t.Error("the gateway dialled an address from a server name")
		}
	}()
	g, at := serveTable(t, testConfig(t), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})
	names := []string{"localhost", "BlackHoleCluster", "inbound|80||", reached.String(), strings.ToUpper(serverName("catalog")), "x." + serverName("catalog")}
	for len(names) < 1000 {
		names = append(names, fmt.Sprintf("outbound_.%d_._.s%x.shop.svc.cluster.local", rand.IntN(65536), rand.Uint64()))
	}
	for _, name := range names {
		if got, err := m.call(at, name); err == nil {
			t.Fatalf("%q: got %q, want the connection closed", name, got)
		}
	}
	g.settle()
	if got := g.rejected(rejectUnknown); got != float64(len(names)) {
		t.Errorf("%v rejections counted, want %d", got, len(names))
	}
	if got := count(g.metrics.opened); got != 0 {
		t.Errorf("%v connections passed on", got)
	}
}

func TestRefusesWhatIsNoHello(t *testing.T) {
	c := testConfig(t)
	c.HelloTimeout = 200 * time.Millisecond
	g, at := serveTable(t, c, map[string][]netip.AddrPort{"empty": nil})
	for reason, sent := range map[string]string{
		rejectNotTLS: "GET / HTTP/1.1\r\nHost: " + serverName("empty") + "\r\n\r\n", rejectMalformed: "\x16\x03\x01\x00\x04\x02\x00\x00\x00",
		rejectTimeout: "\x16\x03\x01", rejectTooLong: "\x16\x03\x01\x40\x00" + strings.Repeat("\x01", 1<<14),
	} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(sent))
		_, _ = io.ReadAll(conn)
		conn.Close()
		g.settle()
		if g.rejected(reason) != 1 {
			t.Errorf("%s: not counted", reason)
		}
	}
	m := newMesh()
	if _, err := m.call(at, ""); err == nil || g.rejected(rejectNoName) != 1 {
		t.Errorf("no server name: got %v, %v counted", err, g.rejected(rejectNoName))
	}
	if _, err := m.call(at, serverName("empty")); err == nil || g.rejected(rejectNoHost) != 1 {
		t.Errorf("service without endpoints: got %v, %v counted", err, g.rejected(rejectNoHost))
	}
}

// An endpoint that cannot be reached costs no connection, and after three failures it rests.
func TestTriesAnotherEndpoint(t *testing.T) {
	m := newMesh()
	dead := unusedAddress(t)
	g, at := serveTable(t, testConfig(t), map[string][]netip.AddrPort{"catalog": {dead, m.backend(t, "catalog")}})
	for range 20 {
		if _, err := m.call(at, serverName("catalog")); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(g.metrics.connectFailures); got != 3 {
		t.Errorf("%v attempts at the dead endpoint, want 3", got)
	}
	all := unusedAddress(t)
	_ = g.tables.apply(update(named{xds.Endpoints, serverName("catalog"), serviceEndpoints(serverName("catalog"), all)}))
	if _, err := m.call(at, serverName("catalog")); err == nil {
		t.Error("reached nobody, yet no error")
	}
	if got := g.rejected(rejectConnect); got != 1 {
		t.Errorf("%v rejections, want 1", got)
	}
}

// What the gateway itself has run out of is no fault of the endpoints: none of them rests for it.
func TestOwnExhaustionIsNotTheEndpoints(t *testing.T) {
	g, _ := serveTable(t, testConfig(t), map[string][]netip.AddrPort{"catalog": {loopback(1), loopback(2)}})
	up := g.tables.latest.Load().upstreams[serverName("catalog")]
	host := up.hosts.Hosts()[0]
	for range 5 {
		g.failed(up, host, os.NewSyscallError("socket", syscall.EMFILE))
	}
	if host.Ejected() {
		t.Error("the endpoint rests because the gateway has no descriptors left")
	}
	for range 5 {
		g.failed(up, host, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	if !host.Ejected() {
		t.Error("an endpoint that refuses does not rest")
	}
}

func TestConnectionsForTheFilesThereAre(t *testing.T) {
	for files, want := range map[uint64]int{math.MaxUint64: 20_000, 1 << 20: 20_000, 4096: 1152, 1024: 128, 256: 1, 0: 1} {
		if got := connectionsFor(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	for reason, change := range map[string]func(*Config){
		rejectLimit: func(c *Config) { c.MaxConnections = 2 }, rejectPerSource: func(c *Config) { c.MaxPerSource = 2 },
	} {
		t.Run(reason, func(t *testing.T) {
			m := newMesh()
			c := testConfig(t)
			change(&c)
			g, at := serveTable(t, c, map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})
			var held []net.Conn
			for range 2 {
				conn, err := net.Dial("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, conn)
			}
			if _, err := m.call(at, serverName("catalog")); err == nil || g.rejected(reason) != 1 {
				t.Errorf("third connection: got %v, %v rejected", err, g.rejected(reason))
			}
			for _, conn := range held {
				conn.Close()
			}
			g.settle()
			if _, err := m.call(at, serverName("catalog")); err != nil {
				t.Errorf("after the others have ended: %v", err)
			}
		})
	}
}

func TestSources(t *testing.T) {
	c := testConfig(t)
	c.Sources = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	m := newMesh()
	g, at := serveTable(t, c, map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})
	if _, err := m.call(at, serverName("catalog")); err == nil || g.rejected(rejectSource) != 1 {
		t.Errorf("got %v, %v rejected", err, g.rejected(rejectSource))
	}
}

// A configuration that would have the gateway end or begin TLS, or look up a name, is refused, and the last good one
// stays: of the very cluster and listener that were refused, too.
func TestKeepsTheLastGoodConfiguration(t *testing.T) {
	m := newMesh()
	g, at := serveTable(t, testConfig(t), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}})
	name := serverName("catalog")
	originate := serviceCluster(name)
	originate.TransportSocket = &corev3.TransportSocket{Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(&tlsv3.UpstreamTlsContext{Sni: "x"})}}
	byName := serviceCluster(name)
	byName.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	byName.EdsClusterConfig, byName.LoadAssignment = nil, &endpointv3.ClusterLoadAssignment{ClusterName: name}
	plain := gatewayListener(loopback(1))
	plain.FilterChains = []*listenerv3.FilterChain{{Filters: plain.FilterChains[0].Filters[1:]}}
	for _, bad := range []named{{xds.Cluster, name, originate}, {xds.Cluster, name, byName}, {xds.Listener, plain.Name, plain}} {
		err := g.tables.apply(update(bad))
		var refusal config.Refusal
		if !errors.As(err, &refusal) || refusal.Name != bad.name {
			t.Errorf("%s: got %v, want a refusal of it", bad.name, err)
		}
		if got, err := m.call(at, name); err != nil || !strings.HasPrefix(got, "catalog") {
			t.Errorf("after %v: %q %v", refusal.Err, got, err)
		}
	}
	if err := g.tables.apply(update(named{xds.Cluster, serverName("cart"), serviceCluster(serverName("cart"))})); err != nil {
		t.Errorf("a good update after a refused one: %v", err)
	}
}

// An update leaves connections alone that its services had, and what was learnt of their endpoints.
func TestUpdateKeepsConnections(t *testing.T) {
	m := newMesh()
	g, at := serveTable(t, testConfig(t), map[string][]netip.AddrPort{"catalog": {m.backend(t, "catalog")}, "cart": {m.backend(t, "cart")}})
	before := g.tables.latest.Load()
	raw, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, m.clientConfig(serverName("catalog")))
	if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	next := m.backend(t, "catalog")
	if err := g.tables.apply(update(named{xds.Endpoints, serverName("catalog"), serviceEndpoints(serverName("catalog"), next)})); err != nil {
		t.Fatal(err)
	}
	after := g.tables.latest.Load()
	if after.upstreams[serverName("cart")] != before.upstreams[serverName("cart")] {
		t.Error("the other service was made anew")
	}
	if got, err := m.call(at, serverName("catalog")); err != nil || !strings.HasPrefix(got, "catalog") {
		t.Errorf("new endpoint: %q %v", got, err)
	}
	message := bytes.Repeat([]byte("still here"), 100)
	go func() { _, _ = conn.Write(message) }()
	if _, err := io.ReadFull(conn, make([]byte, len(message))); err != nil {
		t.Errorf("the old connection: %v", err)
	}
}

// 10 000 connections that send their hello byte by byte cost at most 200 MiB; here fewer, and what each costs. The
// race detector's memory is not the gateway's.
func TestSlowLorisMemory(t *testing.T) {
	const connections = 1000
	g, at := serveTable(t, testConfig(t), map[string][]netip.AddrPort{"catalog": nil})
	before := memory()
	var held []net.Conn
	for range connections {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		_, _ = conn.Write([]byte{0x16, 3})
	}
	for g.metrics.active.Load() < connections {
		time.Sleep(time.Millisecond)
	}
	each := (memory() - before) / connections
	for _, conn := range held {
		conn.Close()
	}
	g.settle()
	t.Logf("%d bytes for each connection, the client's end among them", each)
	if each > 20<<10 {
		t.Errorf("%d bytes for each connection, want at most 20 KiB", each)
	}
}

func memory() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}
