package inbound_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/inbound"
	"github.com/periplus-mesh/periplus/proxy/outbound"
	"github.com/periplus-mesh/periplus/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues SVIDs of one trust domain.
type authority struct {
	domain spiffeid.TrustDomain
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, domain string) *authority {
	t.Helper()
	a := &authority{domain: spiffeid.RequireTrustDomainFromString(domain)}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: domain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.root, _ = x509.ParseCertificate(der)
	return a
}

// source returns an identity that trusts the given authorities.
func (a *authority) source(t *testing.T, path string, trusted ...*authority) *watch.Value[*trust.Material] {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		URIs: []*url.URL{{Scheme: "spiffe", Host: a.domain.Name(), Path: path}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	m := &trust.Material{
		ID: spiffeid.RequireFromPath(a.domain, path), Certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{},
	}
	for _, other := range append(trusted, a) {
		m.Bundles[other.domain] = []*x509.Certificate{other.root}
	}
	return watch.New(m)
}

type server interface {
	ServeConn(context.Context, net.Conn, *config.Listener)
}

// side is one proxy.
type side struct {
	clusters *forward.Clusters
	f        *forward.Forwarder
}

func newSide(c *config.Config, source trust.Source) side {
	clusters := forward.NewClusters(forward.ClustersConfig{Source: source})
	clusters.Update(c)
	return side{clusters, forward.New(forward.Config{Clusters: clusters})}
}

func (s side) serve(t *testing.T, h server, l *config.Listener) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.clusters.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { h.ServeConn(ctx, conn, l) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		cancel()
		s.f.CloseIdle()
		s.f.Wait(ctx)
		running.Wait()
	})
	return ln.Addr().String()
}

func resources(upstream string, tlsTo *config.UpstreamTLS, chain *config.FilterChain) (*config.Config, *config.Listener) {
	settings := &config.Settings{Name: "up", ConnectTimeout: 5 * time.Second, IdleTimeout: time.Hour, TLS: tlsTo}
	if chain.TCP == nil {
		if chain.HTTP == nil {
			chain.HTTP = &config.HTTP{}
		}
		chain.HTTP.Routes = &config.RouteTable{VirtualHosts: []*config.VirtualHost{{Domains: []string{"*"}, Routes: []*config.Route{{
			Match:   config.RouteMatch{Path: config.PathMatch{Value: "/"}},
			Forward: &config.Forward{Clusters: []config.WeightedCluster{{Name: "up", Weight: 1}}, TotalWeight: 1, Timeout: 5 * time.Second},
		}}}}}
	}
	l := &config.Listener{Name: "l", Chains: []*config.FilterChain{chain}}
	endpoints := &config.Endpoints{Overprovisioning: 140, Localities: []config.Locality{{Weight: 1, Endpoints: []config.Endpoint{{Address: netip.MustParseAddrPort(upstream), Weight: 1}}}}}
	return &config.Config{Listeners: map[string]*config.Listener{"l": l}, Clusters: map[string]*config.Cluster{"up": {Name: "up", Settings: settings, Endpoints: endpoints}}}, l
}

var rules = []*config.RBAC{
	{Action: config.RBACDeny, Policies: []config.RBACPolicy{{
		Name: "no admin", Principals: []config.Condition{{Kind: config.Any}},
		Permissions: []config.Condition{{Kind: config.Path, String: &config.StringMatch{Kind: config.StringPrefix, Value: "/admin"}}},
	}}},
	{Action: config.RBACAllow, Policies: []config.RBACPolicy{{
		Name: "checkout", Permissions: []config.Condition{{Kind: config.Any}},
		Principals: []config.Condition{{Kind: config.Authenticated, String: &config.StringMatch{Value: "spiffe://east.mesh/checkout"}}},
	}}},
}

// chain starts client sidecar -> server sidecar -> app and returns the client's address.
func chain(t *testing.T, client, server trust.Source, sans ...string) string {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.URL.Path, strings.Join(r.Header.Values("X-Forwarded-Client-Cert"), "|"))
	}))
	t.Cleanup(app.Close)
	c, l := resources(strings.TrimPrefix(app.URL, "http://"), nil, &config.FilterChain{
		TLS:  &config.DownstreamTLS{ALPN: []string{"periplus-http/1.1"}, RequireClient: true},
		HTTP: &config.HTTP{RBAC: rules, ForwardClientCert: config.SanitizeSetXFCC},
	})
	in := newSide(c, server)
	address := in.serve(t, inbound.New(inbound.Config{Forwarder: in.f, Source: server}), l)
	c, l = resources(address, &config.UpstreamTLS{SNI: "outbound_.80_._.catalog", ALPN: []string{"periplus-http/1.1"}, SANs: sans}, &config.FilterChain{})
	out := newSide(c, client)
	return out.serve(t, outbound.New(outbound.Config{Forwarder: out.f}), l)
}

func get(t *testing.T, address, path string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: catalog\r\nX-Forwarded-Client-Cert: By=me;URI=spiffe://east.mesh/boss\r\nConnection: close\r\n\r\n", path)
	out, _ := io.ReadAll(c)
	return string(out)
}

func TestChain(t *testing.T) {
	east, west := newAuthority(t, "east.mesh"), newAuthority(t, "west.mesh")
	stranger := newAuthority(t, "other.mesh")
	checkout, catalog := east.source(t, "/checkout", west), west.source(t, "/catalog", east)
	for _, test := range []struct {
		name           string
		client, server trust.Source
		san, path      string
		want, lacks    string
	}{
		{"allowed", checkout, catalog, "spiffe://west.mesh/catalog", "/items", ";URI=spiffe://east.mesh/checkout", "boss"},
		{"denied path", checkout, catalog, "spiffe://west.mesh/catalog", "/x/..//%61dmin", "403 Forbidden", "/admin"},
		{"not allowed", east.source(t, "/web", west), catalog, "spiffe://west.mesh/catalog", "/", "RBAC: access denied", ""},
		{"server is another", checkout, catalog, "spiffe://west.mesh/pricing", "/", "503 Service", "200 OK"},
		{"server is a stranger", checkout, stranger.source(t, "/catalog", east), "spiffe://other.mesh/catalog", "/", "503 Service", "200 OK"},
		{"client is a stranger", stranger.source(t, "/checkout", west), catalog, "spiffe://west.mesh/catalog", "/", "503 Service", "200 OK"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := get(t, chain(t, test.client, test.server, test.san), test.path)
			if !strings.Contains(got, test.want) || test.lacks != "" && strings.Contains(got, test.lacks) {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestPlainClientIsRefused(t *testing.T) {
	west := newAuthority(t, "west.mesh")
	source := west.source(t, "/catalog")
	c, l := resources("127.0.0.1:1", nil, &config.FilterChain{TLS: &config.DownstreamTLS{RequireClient: true}})
	in := newSide(c, source)
	address := in.serve(t, inbound.New(inbound.Config{Forwarder: in.f, Source: source}), l)
	if got := get(t, address, "/"); strings.Contains(got, "HTTP/1.1") {
		t.Errorf("%q", got)
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err == nil { // TLS 1.3: the refusal comes with the first read
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil {
		t.Error("a client without certificate was served")
	}
}
