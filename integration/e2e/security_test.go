package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/trust"
)

// sni is the name of catalog's port 80 at gateways and sidecars.
const sni = "outbound_.80_._.catalog.shop.svc.cluster.local"

// forged is a certificate of nobody that the mesh knows, with whatever SPIFFE ID.
func forged(t *testing.T, id string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// request speaks plain HTTP/1.1 over a connection and returns the status line, or why there is none.
func request(conn net.Conn, host string) string {
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return err.Error()
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return line
}

// refusedBy tells whether an error is a server's refusal: it was there, and closed the connection.
func refusedBy(err string) bool {
	return strings.Contains(err, "tls: ") || strings.Contains(err, "EOF") || strings.Contains(err, "connection reset")
}

// Who has no certificate of a federated domain gets nowhere at a workload's sidecar, directly or by a gateway.
func TestUntrustedClientsAreRefused(t *testing.T) {
	inbound, gateway := running.inbound("catalog-us-east-a"), running.host("gateway-us-east-a")+":15443"
	known := trust.ClientConfig(ownIdentity(t, "us-east", "/ns/shop/sa/garbage"), trust.AuthorizeAny)
	known.NextProtos, known.ServerName = []string{"periplus-http/1.1"}, sni
	for _, at := range []string{inbound, gateway} {
		for name, certificates := range map[string][]tls.Certificate{
			"no certificate":             nil,
			"forged of the own domain":   {forged(t, "spiffe://us-east.mesh/ns/shop/sa/visitor")},
			"forged of another domain":   {forged(t, "spiffe://eu-west.mesh/ns/shop/sa/visitor")},
			"a domain nobody registered": {forged(t, "spiffe://evil.example/ns/shop/sa/visitor")},
		} {
			conn, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, ServerName: sni, Certificates: certificates, NextProtos: []string{"periplus-http/1.1"}})
			if err != nil {
				if !refusedBy(err.Error()) {
					t.Errorf("%s at %s: %v", name, at, err)
				}
				continue // in the handshake
			}
			if line := request(conn, "catalog.shop"); !refusedBy(line) {
				t.Errorf("%s at %s: %s", name, at, line)
			}
			conn.Close()
		}
		// With a certificate of the mesh the same request is answered, so it was the certificate.
		good, err := tls.Dial("tcp", at, known)
		if err != nil {
			t.Fatalf("a good certificate at %s: %v", at, err)
		}
		if line := request(good, "catalog.shop"); !strings.HasPrefix(line, "HTTP/1.1 200") {
			t.Errorf("a good certificate at %s: %s", at, line)
		}
		good.Close()
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if line := request(conn, "catalog.shop"); !refusedBy(line) {
			t.Errorf("plain text at %s: %s", at, line)
		}
		conn.Close()
	}
}

// A gateway passes on exported services of its own network and nothing else.
func TestGatewayIsNoOpenRelay(t *testing.T) {
	gateway := running.host("gateway-us-east-a") + ":15443"
	passed := func(sni string) (string, bool) {
		conn, err := net.DialTimeout("tcp", gateway, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: []string{"periplus-http/1.1"}})
		if err := client.Handshake(); err != nil {
			return err.Error(), false
		}
		return fmt.Sprint(client.ConnectionState().PeerCertificates[0].URIs), true
	}
	if who, ok := passed(sni); !ok || !strings.Contains(who, "spiffe://us-east.mesh/ns/shop/sa/catalog") {
		t.Fatalf("the name of an exported service: %v %s", ok, who)
	}
	for _, sni := range []string{
		"", "outbound_.80_._.visitor.shop.svc.cluster.local", "outbound_.81_._.catalog.shop.svc.cluster.local", "outbound_.80_.v9_.catalog.shop.svc.cluster.local",
		"catalog.shop", "127.0.0.1", "localhost", "outbound_.80_._.catalog.other.svc.cluster.local",
	} {
		if who, ok := passed(sni); ok || !refusedBy(who) {
			t.Errorf("SNI %q: passed on %v: %s", sni, ok, who)
		}
	}
}
