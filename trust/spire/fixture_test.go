package spire_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/authority"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// domain is one cluster: an authority, a client of its server API and one workload.
type domain struct {
	td     spiffeid.TrustDomain
	config authority.Config
	client *spire.Client
	source *trust.WorkloadSource
}

func start(t *testing.T, name string, svid time.Duration) *domain {
	t.Helper()
	dir, err := os.MkdirTemp("", "ps") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &domain{td: spiffeid.RequireTrustDomainFromString(name)}
	d.config = authority.Config{
		TrustDomain: d.td, DataDir: filepath.Join(dir, "data"), SVIDTTL: svid, Log: slog.New(slog.DiscardHandler),
		ServerSocket: "unix://" + filepath.Join(dir, "s"), WorkloadSocket: "unix://" + filepath.Join(dir, "w"),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- authority.Run(ctx, d.config) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	if d.client, err = spire.Dial(d.config.ServerSocket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.client.Close() })
	d.ensure(t, d.entry("/ns/shop/sa/cart"))
	if d.source, err = trust.Watch(t.Context(), d.config.WorkloadSocket, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.source.Close() })
	return d
}

func (d *domain) entry(path string) spire.Entry {
	return spire.Entry{
		ID: spiffeid.RequireFromPath(d.td, path), ParentID: spiffeid.RequireFromPath(d.td, "/node"),
		Selectors: []string{fmt.Sprintf("unix:uid:%d", os.Getuid())},
	}
}

func (d *domain) ensure(t *testing.T, entries ...spire.Entry) {
	t.Helper()
	if err := d.client.EnsureEntries(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
}

func (d *domain) bundle(t testing.TB) spire.ForeignBundle {
	t.Helper()
	b, err := d.client.OwnBundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return spire.ForeignBundle{TrustDomain: d.td, JWKS: data}
}

func (d *domain) reconcile(t testing.TB, desired spire.Desired) spire.Status {
	t.Helper()
	status, err := d.client.Reconcile(t.Context(), desired)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// trusts waits until the workload's material has exactly this many roots of the other domain.
func (d *domain) trusts(t *testing.T, other *domain, roots int) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		m, next := d.source.Get()
		if len(m.Bundles[other.td]) == roots {
			return
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatalf("%s sees %d roots of %s, want %d", d.td.Name(), len(m.Bundles[other.td]), other.td.Name(), roots)
		}
	}
}

func federate(t *testing.T, a, b *domain) {
	t.Helper()
	a.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{b.bundle(t)}})
	b.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{a.bundle(t)}})
	a.trusts(t, b, 1)
	b.trusts(t, a, 1)
}

// meet lets from's workload connect to to's, both verifying.
func meet(from, to *domain) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	accepted := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			accepted <- err
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, trust.ServerConfig(to.source, trust.AuthorizeOneOf(spiffeid.RequireFromPath(from.td, "/ns/shop/sa/cart"))))
		if err = conn.Handshake(); err == nil {
			err = conn.Close()
		}
		accepted <- err
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(),
		trust.ClientConfig(from.source, trust.AuthorizeOneOf(spiffeid.RequireFromPath(to.td, "/ns/shop/sa/cart"))))
	if err == nil {
		_, err = io.ReadAll(conn)
		conn.Close()
	}
	if accepted := <-accepted; accepted != nil {
		return accepted
	}
	return err
}
