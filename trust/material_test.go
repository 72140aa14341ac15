package trust_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// handshake connects client and server over loopback and returns what each made of it.
func handshake(t testing.TB, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan error, 1)
	go func() { accepted <- answer(l, server) }()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		// With TLS 1.3 the client learns of a refused certificate only when it reads.
		_, err = io.ReadAll(conn)
		conn.Close()
	}
	return <-accepted, err
}

func answer(l net.Listener, config *tls.Config) error {
	raw, err := l.Accept()
	if err != nil {
		return err
	}
	defer raw.Close()
	conn := tls.Server(raw, config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	return conn.Close()
}

// Trust domain x namespace x account: only the one identity that is meant gets in (never a name without its domain).
func TestAuthorisationMatrix(t *testing.T) {
	east, west, rogue := trusttest.NewCA("east.mesh"), trusttest.NewCA("west.mesh"), trusttest.NewCA("rogue.mesh")
	server := east.Source("/ns/shop/sa/catalog", time.Hour, west)
	allowed := spiffeid.RequireFromString("spiffe://west.mesh/ns/shop/sa/cart")
	config := trust.ServerConfig(server, trust.AuthorizeOneOf(allowed))
	for _, ca := range []*trusttest.CA{east, west, rogue} {
		for _, namespace := range []string{"shop", "shop2"} {
			for _, account := range []string{"cart", "catalog"} {
				path := "/ns/" + namespace + "/sa/" + account
				id := spiffeid.RequireFromPath(ca.TrustDomain, path)
				client := trust.ClientConfig(ca.Source(path, time.Hour, east), trust.AuthorizeAny)
				serverErr, clientErr := handshake(t, config, client)
				if got, want := serverErr == nil && clientErr == nil, id == allowed; got != want {
					t.Errorf("%s: let in %v, want %v (%v, %v)", id, got, want, serverErr, clientErr)
				}
			}
		}
	}
}

// The client refuses a server of another identity, so a gateway or agent that lies about endpoints gains nothing.
func TestClientChecksTheServer(t *testing.T) {
	east, west := trusttest.NewCA("east.mesh"), trusttest.NewCA("west.mesh")
	client := trust.ClientConfig(east.Source("/ns/shop/sa/cart", time.Hour, west),
		trust.AuthorizeOneOf(spiffeid.RequireFromString("spiffe://west.mesh/ns/shop/sa/catalog")))
	for path, want := range map[string]bool{"/ns/shop/sa/catalog": true, "/ns/shop/sa/other": false} {
		server := trust.ServerConfig(west.Source(path, time.Hour, east), trust.AuthorizeAny)
		if _, err := handshake(t, server, client); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	east, west, other := trusttest.NewCA("east.mesh"), trusttest.NewCA("west.mesh"), trusttest.NewCA("other.mesh")
	cart := spiffeid.RequireFromString("spiffe://east.mesh/ns/shop/sa/cart").URL()
	leaf := func(ca *trusttest.CA, edit func(*x509.Certificate)) []*x509.Certificate {
		return []*x509.Certificate{ca.Certificate(func(c *x509.Certificate) {
			c.URIs = []*url.URL{cart}
			edit(c)
		}).Leaf}
	}
	same := func(*x509.Certificate) {}
	names := func(uris ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, raw := range uris {
				u, err := url.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	material := east.SVID("/ns/shop/sa/catalog", time.Hour, west)
	if id, err := material.Verify(leaf(east, same)); err != nil || id.String() != cart.String() {
		t.Fatalf("the good one: %v, %v", id, err)
	}
	for name, row := range map[string]struct {
		chain []*x509.Certificate
		want  string
	}{
		"nothing":                         {nil, "no certificate"},
		"a domain that is not federated":  {leaf(other, names("spiffe://other.mesh/ns/shop/sa/cart")), "not federated"},
		"a federated domain's signature":  {leaf(west, same), "signed by unknown authority"},
		"ours on a federated domain's ID": {leaf(east, names("spiffe://west.mesh/ns/shop/sa/cart")), "signed by unknown authority"},
		"expired":                         {leaf(east, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "expired"},
		"not valid yet":                   {leaf(east, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "not yet valid"},
		"two IDs":                         {leaf(east, names("spiffe://east.mesh/a", "spiffe://east.mesh/b")), "2 URI names"},
		"no ID":                           {leaf(east, names()), "0 URI names"},
		"not a SPIFFE ID":                 {leaf(east, names("https://east.mesh/a")), "scheme"},
		"an ID without path":              {leaf(east, names("spiffe://east.mesh")), "needs a path"},
		"a CA":                            {leaf(east, func(c *x509.Certificate) { c.IsCA = true }), "is a CA's"},
		"a key that may sign certificates": {leaf(east, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		}), "is a CA's"},
		"the root itself": {[]*x509.Certificate{east.Root()}, "is a CA's"},
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := material.Verify(row.chain); err == nil || !strings.Contains(err.Error(), row.want) || !id.IsZero() && err == nil {
				t.Fatalf("got %v, %v; want %q", id, err, row.want)
			}
		})
	}
}

func TestOptionalClient(t *testing.T) {
	east, rogue := trusttest.NewCA("east.mesh"), trusttest.NewCA("rogue.mesh")
	server := trust.OptionalClientConfig(east.Source("/controller/a", time.Hour), trust.AuthorizeAny)
	anonymous := trust.ClientConfig(east.Source("/x", time.Hour), trust.AuthorizeAny)
	anonymous.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	if serverErr, clientErr := handshake(t, server, anonymous); serverErr != nil || clientErr != nil {
		t.Fatalf("without certificate: %v, %v", serverErr, clientErr)
	}
	if _, err := trust.PeerID(tls.ConnectionState{}); !errors.Is(err, trust.ErrUnverified) {
		t.Fatalf("got %v", err)
	}
	stranger := trust.ClientConfig(rogue.Source("/x", time.Hour, east), trust.AuthorizeAny)
	if serverErr, _ := handshake(t, server, stranger); serverErr == nil {
		t.Fatal("an unverifiable certificate was let in")
	}
}

func TestBundleRoundTrip(t *testing.T) {
	east := trusttest.NewCA("east.mesh")
	east.Rotate()
	data := east.JWKS(7)
	b, err := trust.ParseBundle(east.TrustDomain, data)
	if err != nil || b.Sequence != 7 || len(b.X509) != 2 {
		t.Fatalf("got %+v, %v", b, err)
	}
	again, err := b.Marshal()
	if err != nil || string(again) != string(data) {
		t.Fatalf("not the same bytes: %s, %v", again, err)
	}
	backwards := trust.NewBundle(east.TrustDomain, 7, []*x509.Certificate{b.X509[1], b.X509[0], b.X509[1]}, nil)
	if data, err := backwards.Marshal(); err != nil || string(data) != string(again) || !b.SameKeys(backwards) {
		t.Fatalf("the order of roots counts: %s, %v", data, err)
	}
}

func TestParseBundleRefuses(t *testing.T) {
	east := trusttest.NewCA("east.mesh")
	leaf := east.SVID("/a", time.Hour).Certificate.Leaf
	marshal := func(roots ...*x509.Certificate) string {
		data, err := trust.NewBundle(east.TrustDomain, 1, roots, nil).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for name, row := range map[string]struct{ data, want string }{
		"nothing":           {"", "not a JWKS"},
		"a list":            {"[]", "not a JWKS"},
		"no keys":           {`{"spiffe_sequence":1}`, "no X.509 root"},
		"no sequence":       {`{"keys":[]}`, "no spiffe_sequence"},
		"negative sequence": {`{"keys":[],"spiffe_sequence":-1}`, "not a JWKS"},
		"a leaf as root":    {marshal(leaf), "not a CA's"},
		"another's root":    {marshal(trusttest.NewCA("west.mesh").Root()), "spiffe://west.mesh"},
		"one good, one bad": {marshal(east.Root(), leaf), "not a CA's"},
		"too large":         {marshal(east.Root()) + strings.Repeat(" ", trust.MaxBundleBytes), "limit"},
		"JWT key, no ID":    {`{"keys":[{"use":"jwt-svid","kty":"EC","crv":"P-256","x":"AA","y":"AA"}],"spiffe_sequence":1}`, ""},
	} {
		if b, err := trust.ParseBundle(east.TrustDomain, []byte(row.data)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, %v; want %q", name, b, err, row.want)
		}
	}
}

// No input panics; what is read has a root and writes itself the same again.
func FuzzParseBundle(f *testing.F) {
	east := trusttest.NewCA("east.mesh")
	f.Add(east.JWKS(1))
	f.Add([]byte(`{"keys":[],"spiffe_sequence":1}`))
	f.Add([]byte(`{"keys":[{"use":"jwt-svid","kid":"a","kty":"oct","k":"AA"}],"spiffe_sequence":18446744073709551615,"spiffe_refresh_hint":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := trust.ParseBundle(east.TrustDomain, data)
		if err != nil {
			return
		}
		first, err := b.Marshal()
		if err != nil || len(b.X509) == 0 {
			t.Fatalf("%+v: %v", b, err)
		}
		c, err := trust.ParseBundle(east.TrustDomain, first)
		if err != nil || !b.SameKeys(c) || b.Sequence != c.Sequence {
			t.Fatalf("%s: %v", first, err)
		}
	})
}

func ExampleServerConfig() {
	east := trusttest.NewCA("east.mesh")
	config := trust.ServerConfig(east.Source("/ns/shop/sa/catalog", time.Hour), trust.AuthorizeAny)
	fmt.Println(config.MinVersion == tls.VersionTLS13, config.ClientAuth)
	// Output: true RequireAnyClientCert
}

// One verification of a leaf under one root; 2-core cloud machine: about 95 µs.
func BenchmarkVerify(b *testing.B) {
	east := trusttest.NewCA("east.mesh")
	material := east.SVID("/ns/shop/sa/cart", time.Hour)
	chain := []*x509.Certificate{material.Certificate.Leaf}
	for b.Loop() {
		if _, err := material.Verify(chain); err != nil {
			b.Fatal(err)
		}
	}
}
