package inbound_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/inbound"
	"github.com/periplus-mesh/periplus/proxy/outbound"
	"github.com/periplus-mesh/periplus/trust"
)

// tcpApp reads to the end of what it is sent, and only then answers with it.
func tcpApp(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				_, _ = c.Write(append([]byte("echo "), b...))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); running.Wait() })
	return ln.Addr().String()
}

func tcpTo(name string) *config.TCP {
	return &config.TCP{Clusters: []config.WeightedCluster{{Name: name, Weight: 1}}, TotalWeight: 1, MaxAttempts: 1}
}

// tcpChain starts client sidecar -> server sidecar -> app and returns the client's address.
func tcpChain(t *testing.T, client, server trust.Source, rbac []*config.RBAC) string {
	t.Helper()
	c, l := resources(tcpApp(t), nil, &config.FilterChain{TLS: &config.DownstreamTLS{ALPN: []string{"periplus-tcp"}, RequireClient: true}, RBAC: rbac, TCP: tcpTo("up")})
	in := newSide(c, server)
	address := in.serve(t, inbound.New(inbound.Config{Forwarder: in.f, Source: server}), l)
	c, l = resources(address, &config.UpstreamTLS{SNI: "db", ALPN: []string{"periplus-tcp"}, SANs: []string{"spiffe://west.mesh/db"}}, &config.FilterChain{TCP: tcpTo("up")})
	out := newSide(c, client)
	return out.serve(t, outbound.New(outbound.Config{Forwarder: out.f}), l)
}

func TestTCPThroughBothSidecars(t *testing.T) {
	east, west := newAuthority(t, "east.mesh"), newAuthority(t, "west.mesh")
	server := west.source(t, "/db", east)
	big := strings.Repeat("x", 1<<20)
	deny := []*config.RBAC{{Action: config.RBACDeny, Policies: []config.RBACPolicy{{Name: "all",
		Permissions: []config.Condition{{Kind: config.Any}}, Principals: []config.Condition{{Kind: config.Authenticated, String: &config.StringMatch{Value: "spiffe://east.mesh/checkout"}}}}}}}
	for _, test := range []struct {
		name, client, send, want string
		rbac                     []*config.RBAC
	}{
		{"half-close passes both ways", "/checkout", "hello", "echo hello", nil},
		{"bulk", "/checkout", big, "echo " + big, nil},
		{"allowed by name", "/checkout", "hello", "echo hello", rules[1:]},
		{"not allowed", "/web", "hello", "", rules[1:]},
		{"denied", "/checkout", "hello", "", deny},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", tcpChain(t, east.source(t, test.client, west), server, test.rbac))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, test.send)
			_ = conn.(*net.TCPConn).CloseWrite()
			if got, _ := io.ReadAll(conn); string(got) != test.want {
				t.Errorf("got %d bytes %.30q, want %d", len(got), got, len(test.want))
			}
		})
	}
}

// follow asks open connections again until stop is called.
func follow(t *testing.T, in *inbound.Inbound) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { _ = in.Follow(ctx) })
	return func() { cancel(); following.Wait() }
}

// dialTLS is a connection as a sidecar with an identity makes it, for 10 s.
func dialTLS(t *testing.T, address string, source trust.Source, protocols ...string) *tls.Conn {
	t.Helper()
	settings := trust.ClientConfig(source, trust.AuthorizeAny)
	settings.ServerName, settings.NextProtos = "db", protocols
	conn, err := tls.Dial("tcp", address, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// A policy that arrives ends the open connections that it refuses, and no others; a connection that was permitted under an
// older one is asked again before it begins.
func TestPolicyEndsOpenConnections(t *testing.T) {
	east, west := newAuthority(t, "east.mesh"), newAuthority(t, "west.mesh")
	server := west.source(t, "/db", east)
	chain := &config.FilterChain{TLS: &config.DownstreamTLS{ALPN: []string{"periplus-tcp"}, RequireClient: true}, TCP: tcpTo("up")}
	first, l := resources(tcpApp(t), nil, chain)
	with := func(rbac []*config.RBAC) *config.Config {
		c, listener, denying := *first, *l, *chain
		denying.RBAC = rbac
		listener.Chains = []*config.FilterChain{&denying}
		c.Listeners = map[string]*config.Listener{"l": &listener}
		return &c
	}
	var current watch.Value[*config.Config]
	current.Set(first)
	side := newSide(first, server)
	in := inbound.New(inbound.Config{Forwarder: side.f, Source: server, Current: &current})
	address := side.serve(t, in, l)
	defer follow(t, in)()
	dial := func(path string) *tls.Conn { return dialTLS(t, address, east.source(t, path, west), "periplus-tcp") }
	finish := func(conn *tls.Conn) string {
		_, _ = io.WriteString(conn, "hello")
		_ = conn.CloseWrite()
		got, _ := io.ReadAll(conn)
		return string(got)
	}
	checkout, web := dial("/checkout"), dial("/web")
	for _, conn := range []*tls.Conn{checkout, web} { // so that they are established at the server, too
		if _, err := io.WriteString(conn, "well, "); err != nil {
			t.Fatal(err)
		}
	}
	current.Set(with(nil)) // changes nothing for them
	current.Set(with([]*config.RBAC{{Action: config.RBACDeny, Policies: []config.RBACPolicy{{Name: "no-checkout",
		Permissions: []config.Condition{{Kind: config.Any}}, Principals: []config.Condition{{Kind: config.Authenticated, String: &config.StringMatch{Value: "spiffe://east.mesh/checkout"}}}}}}}))
	if got, err := io.ReadAll(checkout); len(got) > 0 || err != nil {
		t.Errorf("the connection that is denied now: %q, %v", got, err)
	}
	if got := finish(web); got != "echo well, hello" {
		t.Errorf("the other connection: %q", got)
	}
	if got := finish(dial("/checkout")); got != "" { // the listener still serves what it did at first
		t.Errorf("a connection permitted by a policy that is gone: %q", got)
	}
}

// When a trust domain is trusted no more its open connections end, of TCP and of HTTP; those of other domains do not.
func TestWithdrawnTrustEndsOpenConnections(t *testing.T) {
	east, south, west := newAuthority(t, "east.mesh"), newAuthority(t, "south.mesh"), newAuthority(t, "west.mesh")
	for _, kind := range []string{"tcp", "http"} {
		t.Run(kind, func(t *testing.T) {
			server := west.source(t, "/db", east, south)
			chain := &config.FilterChain{TLS: &config.DownstreamTLS{RequireClient: true}}
			app := httptest.NewServer(http.NotFoundHandler())
			defer app.Close()
			if kind == "tcp" {
				chain.TCP = tcpTo("up")
			}
			c, l := resources(strings.TrimPrefix(app.URL, "http://"), nil, chain)
			side := newSide(c, server)
			in := inbound.New(inbound.Config{Forwarder: side.f, Source: server, Current: watch.New(c)})
			address := side.serve(t, in, l)
			defer follow(t, in)()
			ask := func(conn *tls.Conn) error {
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				response, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
				}
				return err
			}
			gone, stays := dialTLS(t, address, east.source(t, "/checkout", west)), dialTLS(t, address, south.source(t, "/checkout", west))
			if err := errors.Join(ask(gone), ask(stays)); err != nil {
				t.Fatal(err)
			}
			server.Set(withdraw(server.Latest(), east))
			if n, err := gone.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection of the domain that is gone: %d bytes, %v", n, err)
			}
			if err := ask(stays); err != nil {
				t.Errorf("the other connection: %v", err)
			}
		})
	}
}

// A root that is no longer trusted ends the resumption of sessions that were made under it, on both sides.
func TestWithdrawnTrustEndsResumption(t *testing.T) {
	east, west := newAuthority(t, "east.mesh"), newAuthority(t, "west.mesh")
	client, server := east.source(t, "/checkout", west), west.source(t, "/catalog", east)
	app := httptest.NewServer(http.NotFoundHandler())
	defer app.Close()
	c, l := resources(strings.TrimPrefix(app.URL, "http://"), nil, &config.FilterChain{TLS: &config.DownstreamTLS{RequireClient: true}})
	in := newSide(c, server)
	address := in.serve(t, inbound.New(inbound.Config{Forwarder: in.f, Source: server}), l)
	settings := trust.ClientConfig(client, trust.AuthorizeAny)
	settings.ServerName, settings.ClientSessionCache = "catalog", tls.NewLRUClientSessionCache(1)
	// ask reports whether the session was resumed.
	ask := func() (bool, error) {
		conn, err := tls.Dial("tcp", address, settings)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(conn) // a refusal of the server's comes with the first read, and so does the ticket
		if err == nil && !strings.Contains(string(answer), "404") {
			t.Errorf("%q", answer)
		}
		return conn.ConnectionState().DidResume, err
	}
	for i, want := range []bool{false, true, true} {
		if resumed, err := ask(); err != nil || resumed != want {
			t.Fatalf("%d: resumed %v, %v", i, resumed, err)
		}
	}
	trusting := server.Latest()
	server.Set(withdraw(trusting, east))
	if resumed, err := ask(); err == nil {
		t.Errorf("the server took a client whose root it has withdrawn; resumed %v", resumed)
	}
	server.Set(trusting)
	if _, err := ask(); err != nil {
		t.Fatal(err)
	}
	client.Set(withdraw(client.Latest(), west))
	if resumed, err := ask(); err == nil {
		t.Errorf("the client took a server whose root it has withdrawn; resumed %v", resumed)
	}
}

// withdraw is m without the roots of gone.
func withdraw(m *trust.Material, gone *authority) *trust.Material {
	out := *m
	out.Bundles = maps.Clone(m.Bundles)
	delete(out.Bundles, gone.domain)
	return &out
}
