package e2e

import (
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
	stream, err := pb.NewWorkloadServiceClient(connectAs(t, prefix+".1.2:15012", "", catalog)).Announce(t.Context())
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
	t.Cleanup(func() {
		stream.Send(&pb.AnnounceRequest{Name: "false", Address: address, Network: "eu-west", Health: pb.Health_HEALTH_DRAINING})
		stream.CloseSend()
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

func viaFalse(r *http.Request) { r.Header.Set("X-To", "false") }

// refusedByClient asks the false endpoint until the request gets there, and expects the client's sidecar to refuse it.
func refusedByClient(t *testing.T, what string) {
	t.Helper()
	within(t, 5*time.Second, what, func() error {
		status, body, _ := ask(t, running.outbound(visitorA), "catalog.shop", "/", viaFalse)
		if status == http.StatusOK {
			t.Fatalf("%s: it was answered: %s", what, body)
		}
		if status != http.StatusServiceUnavailable || strings.Contains(body, "no healthy upstream") {
			return fmt.Errorf("%d %s", status, body)
		}
		t.Logf("%s: %d %s", what, status, body)
		return nil
	})
	if status, body, _ := ask(t, running.outbound(visitorA), "catalog.shop", "/", nil); status != http.StatusOK {
		t.Errorf("the others are well: %d %s", status, body)
	}
}

// impostor is a server of a workload's port with any certificate, which counts what reaches it.
func impostor(t *testing.T, address string, config *tls.Config) *atomic.Int64 {
	t.Helper()
	listener, err := net.Listen("tcp", address+":15006")
	if err != nil {
		t.Fatal(err)
	}
	requests := new(atomic.Int64)
	config.NextProtos = []string{"periplus-http/1.1"}
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { requests.Add(1); io.WriteString(w, "gotcha") }),
		ErrorLog: nil, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){"periplus-http/1.1": nil},
	}
	plain := make(chan net.Conn)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				close(plain)
				return
			}
			go answer(tls.Server(conn, config), requests)
		}
	}()
	t.Cleanup(func() { listener.Close(); server.Close() })
	return requests
}

// answer says yes to whatever comes over a connection.
func answer(conn net.Conn, requests *atomic.Int64) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
		requests.Add(1)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ngotcha")
	}
}
