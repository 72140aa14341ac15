package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/trust"
)

// announced makes the test an endpoint of catalog in eu-west, at an address of its choice, that only requests with
// the header "x-to: false" are sent to.
func announced(t *testing.T, address string) {
	t.Helper()
	catalog := ownIdentity(t, "eu-west", "/ns/shop/sa/catalog")
	stream, err := pb.NewWorkloadServiceClient(connectAs(t, prefix+".1.2:15012", "", catalog)).Announce(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&pb.AnnounceRequest{
		Name: "false", Address: address, Network: "eu-west", Locality: &pb.Locality{Region: "eu-west", Zone: "eu-west-a"}, Health: pb.Health_HEALTH_HEALTHY,
		Weight: 1, Labels: map[string]string{"version": "false"},
		Services: []*pb.AnnouncedService{{Name: "catalog", Ports: []*pb.AnnouncedPort{{Name: "http", Port: 80, Protocol: "http", EndpointPort: 15006}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if response, err := stream.Recv(); err != nil || len(response.GetRejections()) > 0 {
		t.Fatal(response, err)
	}
	listed := func() bool {
		return strings.Contains(read(t, running.admin(visitorA)+"/clusters"), "outbound|80|wrong|catalog.shop.svc.cluster.local::"+address+":15006::health_flags::healthy")
	}
	within(t, 5*time.Second, "the client's sidecar knows of it", func() error {
		if !listed() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	t.Cleanup(func() {
		stream.Send(&pb.AnnounceRequest{Name: "false", Address: address, Network: "eu-west", Health: pb.Health_HEALTH_DRAINING})
		stream.CloseSend()
		within(t, 5*time.Second, "the client's sidecar forgot it", func() error {
			if listed() {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	})
}

// toFalse routes requests with the header to the endpoint of announced, and all others past it.
func toFalse(t *testing.T) {
	running.withPolicy(t, "DestinationRule", "catalog", "  host: catalog\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: wrong, labels: {version: \"false\"}}")
	running.withPolicy(t, "VirtualService", "catalog", `  hosts: [catalog]
  http:
  - match: [{headers: {x-to: {exact: "false"}}}]
    route: [{destination: {host: catalog, subset: wrong}}]
    retries: {attempts: 0}
  - route: [{destination: {host: catalog, subset: v1}}]
    retries: {attempts: 0}`)
}

// impostor listens at a workload's port with the certificate of any source, and counts what reaches it.
func impostor(t *testing.T, address string, source trust.Source) *atomic.Int64 {
	t.Helper()
	listener, err := net.Listen("tcp", address+":15006")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"periplus-http/1.1"}, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			material, _ := source.Get()
			return material.Certificate, nil
		},
	}
	requests := new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(tls.Server(conn, config), requests)
		}
	}()
	return requests
}

// answer says yes to whatever comes over a connection.
func answer(conn net.Conn, requests *atomic.Int64) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
		requests.Add(1)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ngotcha")
	}
}

// untrusted is a workload's SVID as good as any, of a trust domain that nobody registered.
func untrusted(t *testing.T) trust.Source {
	t.Helper()
	dir, err := os.MkdirTemp("", "evil") // a short path: sockets live below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	server, workload := "unix://"+filepath.Join(dir, "s.sock"), "unix://"+filepath.Join(dir, "w.sock")
	spawn(t, filepath.Join(dir, "authority"), "authority", "--trust-domain", "evil.example", "--data-dir", filepath.Join(dir, "a"), "--server-socket", server, "--workload-socket", workload)
	within(t, 10*time.Second, "the authority listens", func() error {
		_, err := os.Stat(filepath.Join(dir, "s.sock"))
		return err
	})
	return workloadIdentity(t, server, workload, "spiffe://evil.example/ns/shop/sa/catalog")
}

// A client's sidecar talks to nobody but the service that was asked for: not to another service of the same cluster,
// not to the same name in a trust domain that nobody registered.
func TestClientRefusesTheWrongServer(t *testing.T) {
	toFalse(t)
	address := prefix + ".1.210"
	for _, c := range []struct {
		what   string
		source func() trust.Source
		status int
	}{
		{"catalog itself", func() trust.Source { return ownIdentity(t, "eu-west", "/ns/shop/sa/catalog") }, http.StatusOK},
		{"inventory", func() trust.Source { return ownIdentity(t, "eu-west", "/ns/shop/sa/inventory") }, http.StatusServiceUnavailable},
		{"the visitor's own identity", func() trust.Source { return ownIdentity(t, "eu-west", "/ns/shop/sa/visitor") }, http.StatusServiceUnavailable},
		{"catalog of an untrusted domain", func() trust.Source { return untrusted(t) }, http.StatusServiceUnavailable},
	} {
		t.Run(c.what, func(t *testing.T) {
			requests := impostor(t, address, c.source())
			announced(t, address)
			askedFalse(t, c.status)
			if got := requests.Load() > 0; got != (c.status == http.StatusOK) {
				t.Errorf("a request reached the application: %v", got)
			}
		})
	}
	t.Run("the real inventory under catalog's name", func(t *testing.T) {
		announced(t, prefix+".1.23")
		askedFalse(t, http.StatusServiceUnavailable)
	})
}

// askedFalse sends requests to the false endpoint until one gets there.
func askedFalse(t *testing.T, want int) {
	t.Helper()
	within(t, 8*time.Second, fmt.Sprintf("an answer of %d", want), func() error {
		status, body, _ := ask(t, running.outbound(visitorA), "catalog.shop", "/", func(r *http.Request) { r.Header.Set("X-To", "false") })
		if status == http.StatusOK && want != status {
			t.Fatalf("it was answered: %s", body)
		}
		if status != want || strings.Contains(body, "no healthy upstream") {
			return fmt.Errorf("%d %s", status, body)
		}
		t.Logf("%d %.300s", status, body)
		return nil
	})
	if status, body, _ := ask(t, running.outbound(visitorA), "catalog.shop", "/", nil); status != http.StatusOK {
		t.Errorf("the others are well: %d %s", status, body)
	}
}

// A valid SVID of a trust domain that nobody registered opens no door of the mesh.
func TestUntrustedDomainIsRefusedEverywhere(t *testing.T) {
	evil := untrusted(t)
	for what, at := range map[string]string{
		"sidecar": prefix + ".1.22:15006", "agent": prefix + ".1.2:15012", "controller": running.controllers()[0], "raft": strings.Replace(running.controllers()[0], ":15012", ":15013", 1),
		"admin": running.plan.AdminServers()[0], "through a gateway": prefix + ".2.11:15443",
	} {
		for _, alpn := range []string{"periplus-http/1.1", "h2", "http/1.1"} {
			config := &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: []string{alpn}}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				material, _ := evil.Get()
				return material.Certificate, nil
			}
			conn, err := tls.Dial("tcp", at, config)
			if err != nil {
				if !refusedBy(err.Error()) {
					t.Errorf("%s, %s: %v", what, alpn, err)
				}
				continue
			}
			// With TLS 1.3 a client learns with the first read that it was refused.
			if line := request(conn, "catalog.shop"); !refusedBy(line) {
				t.Errorf("%s, %s: %q", what, alpn, line)
			}
			conn.Close()
		}
	}
	// The same workload with an identity of the mesh is let in, so it was the trust domain.
	good := ownIdentity(t, "us-east", "/ns/shop/sa/garbage")
	for at, server := range map[string]string{
		prefix + ".1.22:15006": "spiffe://eu-west.mesh/ns/shop/sa/catalog", prefix + ".2.11:15443": "spiffe://us-east.mesh/ns/shop/sa/catalog",
	} {
		config := trust.ClientConfig(good, trust.AuthorizeOneOf(spiffeid.RequireFromString(server)))
		config.NextProtos, config.ServerName = []string{"periplus-http/1.1"}, sni
		conn, err := tls.Dial("tcp", at, config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if line := request(conn, "catalog.shop"); !strings.Contains(line, " 200") {
			t.Errorf("a good identity at %s: %q", at, line)
		}
	}
}
