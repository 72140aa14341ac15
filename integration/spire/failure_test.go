package spire_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

const (
	sni  = "outbound_.80_._.catalog.shop.svc.cluster.local"
	alpn = "periplus-http/1.1"
)

// call sends a request to a sidecar's mesh port with an SVID of one's own, and returns the status line. It verifies
// nothing: this is about what the sidecar does.
func call(to *harness.Sidecar, source trust.Source) (string, error) {
	conn, err := tls.Dial("tcp", to.Inbound, &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: []string{alpn},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			material, _ := source.Get()
			return material.Certificate, nil
		}})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: catalog.shop\r\n\r\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func admitted(to *harness.Sidecar, source trust.Source) error {
	line, err := call(to, source)
	if err == nil && !strings.HasPrefix(line, "HTTP/1.1 200") {
		err = errors.New(line)
	}
	return err
}

// refused wants a refusal in the handshake.
func refused(to *harness.Sidecar, source trust.Source) error {
	line, err := call(to, source)
	if err == nil || !strings.Contains(err.Error(), "tls: ") {
		return fmt.Errorf("not refused: %q %v", line, err)
	}
	return nil
}

// serve answers as legacy.shop with an SVID, and counts the requests.
func (w *world) serve(t *testing.T, source trust.Source) (requests *atomic.Int64, stop func()) {
	t.Helper()
	listener, err := tls.Listen("tcp", w.legacy+":15006", &tls.Config{NextProtos: []string{alpn}, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			material, _ := source.Get()
			return material.Certificate, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		io.WriteString(w, "legacy")
	})}
	go server.Serve(noALPN{listener})
	return requests, func() { server.Close() }
}

// noALPN hides TLS from net/http, which does not know the mesh's protocol names.
type noALPN struct{ net.Listener }

func (l noALPN) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return struct{ net.Conn }{conn}, err
}

// An SVID of a domain that is not federated opens nothing, from either end of a connection; the same workload's SVID
// of a federated domain does.
func (w *world) unfederatedIsRefused(t *testing.T) {
	south := trusttest.NewCA("south.test")
	if err := refused(w.catalog, trust.FixedSource(south.SVID("/ns/shop/sa/visitor", time.Hour))); err != nil {
		t.Errorf("catalog's sidecar and a client of south: %v", err)
	}
	if err := admitted(w.catalog, probe(t, w.west, "probe")); err != nil {
		t.Errorf("catalog's sidecar and a client of west: %v", err)
	}
	requests, stop := w.serve(t, trust.FixedSource(south.SVID("/ns/shop/sa/legacy", time.Hour)))
	status, body, _, err := harness.Get(w.visitor.Outbound, "legacy.shop", "/")
	if err != nil || status != http.StatusServiceUnavailable || requests.Load() > 0 {
		t.Errorf("visitor's sidecar and a server of south: %d %q %v, %d requests", status, body, err, requests.Load())
	}
	t.Logf("visitor's sidecar: %s", strings.TrimSpace(body))
	stop()
	_, stop = w.serve(t, probe(t, w.east, "legacy"))
	defer stop()
	harness.Eventually(t, 20*time.Second, "the right server is let in", harness.Answered(w.visitor.Outbound, "legacy.shop", "legacy"))
}

// West's SPIRE server is killed while east's root changes, its cluster's agent with it; SPIRE's agent restarts later.
// No request fails, the status tells what is known, and the new root arrives as soon as the server is back.
func (w *world) serversAndAgentsFail(t *testing.T) {
	stop := w.load(t)
	before := w.trust(t)["east.test"].Sequence
	w.west.spire.Server.Kill()
	localAuthority(t, w.east, "prepared_authority", "prepare")
	took := harness.Eventually(t, 40*time.Second, "the status tells of the server", func() error {
		d := w.trust(t)["east.test"]
		p := d.Peers[0]
		if d.Sequence <= before || p.Sequence != before || p.State == "InSync" || !strings.Contains(p.Reason, "does it run") {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	t.Logf("told %s after the SPIRE server was killed:\n%s", took, w.Periplus("trust", "status"))
	w.west.agent.Kill()
	w.west.agent.Start()
	w.west.AwaitAgent(w.west.agent)
	w.west.spire.Server.Start()
	w.west.spire.AwaitServer()
	took = harness.Eventually(t, 30*time.Second, "the new root is in sync", func() error { return w.rotated(t, "east.test", before, 2) })
	t.Logf("in sync %s after the SPIRE server was back", took)
	w.west.spire.Agent.Stop()
	w.west.spire.Agent.Start()
	harness.Eventually(t, 20*time.Second, "SVIDs are issued again", func() error {
		return knows(probe(t, w.west, "later"), "east.test", localAuthority(t, w.east, "active", "show"))
	})
	stop()
	if !strings.Contains(w.west.agent.Log(), "federation is not up to date, what is set stays in force") {
		t.Error("the agent's log does not tell")
	}
}

// A cluster that is removed leaves no relationship, no bundle and no entry behind, and is refused from then on.
func (w *world) removedClusterIsForgotten(t *testing.T) {
	west, east := probe(t, w.west, "probe"), probe(t, w.east, "legacy")
	if err := errors.Join(admitted(w.catalog, west), admitted(w.visitor, east)); err != nil {
		t.Fatal(err)
	}
	w.Periplus("cluster", "remove", "west", "--force")
	took := harness.Eventually(t, 40*time.Second, "east's SPIRE server has nothing of west", func() error {
		if left := relationships(t, w.east); len(left) > 0 {
			return fmt.Errorf("%+v", left)
		}
		if left := w.east.spire.ServerCommand("bundle", "list"); strings.Contains(left, "west.test") {
			return errors.New(left)
		}
		for _, e := range entries(t, w.east) {
			if slices.Contains(e.FederatesWith, "west.test") {
				return fmt.Errorf("%+v", e)
			}
		}
		return nil
	})
	t.Logf("nothing of west is left after %s", took)
	took = harness.Eventually(t, 15*time.Second, "west's workloads are refused", func() error { return refused(w.catalog, west) })
	t.Logf("west's workloads are refused %s later", took)
	harness.Eventually(t, 10*time.Second, "workloads of east refuse west's", func() error {
		conn, err := tls.Dial("tcp", w.visitor.Inbound, trust.ClientConfig(east, trust.AuthorizeAny))
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "is not federated") {
			return fmt.Errorf("not refused: %v", err)
		}
		return nil
	})
	if d, ok := w.trust(t)["west.test"]; ok {
		t.Errorf("the status still has %+v", d)
	}
	if left := w.east.spire.ServerCommand("bundle", "list"); !strings.Contains(left, "theirs.test") {
		t.Errorf("somebody else's bundle went too:\n%s", left)
	}
}
