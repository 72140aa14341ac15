package trust_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// Sessions are resumed while the material stays, and after the server's root was replaced no handshake fails for the
// sake of an old one.
func TestSessionsEndWithTheirMaterial(t *testing.T) {
	ca := trusttest.NewCA("west.mesh")
	server, client := watch.New(ca.SVID("/server", time.Hour)), watch.New(ca.SVID("/client", time.Hour))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", trust.ServerConfig(server, trust.AuthorizeAny))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "x")
				io.Copy(io.Discard, conn)
			}()
		}
	}()
	config := trust.ClientConfig(client, trust.AuthorizeAny)
	config.ServerName, config.ClientSessionCache = "server", trust.SessionCache(client, 8)
	resumed := func(when string) bool {
		t.Helper()
		dialer := net.Dialer{Timeout: 5 * time.Second}
		conn, err := tls.DialWithDialer(&dialer, "tcp", listener.Addr().String(), config)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != nil { // tickets come before it
			t.Fatalf("%s: %v", when, err)
		}
		return conn.ConnectionState().DidResume
	}
	if resumed("the first") {
		t.Error("there was nothing to resume")
	}
	if !resumed("the second") {
		t.Error("a session was not resumed")
	}
	// Prepare, activate and taint, revoke: both are told of the new root, get SVIDs by it, and forget the old one.
	ca.Rotate()
	server.Set(ca.SVID("/server", time.Hour))
	client.Set(ca.SVID("/client", time.Hour))
	if resumed("with a new root") {
		t.Error("a session was resumed with an SVID that was replaced")
	}
	if !resumed("with a new root, again") {
		t.Error("a session was not resumed")
	}
	ca.Retire()
	server.Set(ca.SVID("/server", time.Hour))
	client.Set(ca.SVID("/client", time.Hour))
	resumed("without the old root")
}
