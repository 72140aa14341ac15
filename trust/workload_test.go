package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := Watch(ctx, "unix://"+filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrNoMaterial) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "none") {
		t.Fatalf("got %v", err)
	}
}

func TestWatchRefusesOtherAddresses(t *testing.T) {
	for _, socket := range []string{"", "/path", "tcp://127.0.0.1:1", "unix:relative", "unix://host/path", "%"} {
		if _, err := Watch(t.Context(), socket, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q: taken", socket)
		}
	}
}

// logBuffer is a concurrent-safe buffer of text lines.
type logBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func newSource(log *logBuffer) *WorkloadSource {
	return &WorkloadSource{
		first: make(chan struct{}), cancel: func() {}, metrics: newWorkloadMetrics(), log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

func withLife(life time.Duration) *Material {
	now := time.Now()
	leaf := &x509.Certificate{NotBefore: now, NotAfter: now.Add(life)}
	return &Material{ID: spiffeid.RequireFromString("spiffe://east.mesh/a"), Certificate: &tls.Certificate{Leaf: leaf}}
}

// The expiry of what is not renewed is announced at 50, 25 and 10 percent of life left, and when it is there.
func TestExpiryWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		s := newSource(log)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.material.Set(withLife(100 * time.Minute))
		s.running.Go(func() { s.warn(ctx) })
		expect := func(at time.Duration, lines int, last string) {
			t.Helper()
			synctest.Wait()
			all := strings.Split(strings.TrimSpace(log.String()), "\n")
			if log.String() == "" {
				all = nil
			}
			if len(all) != lines || lines > 0 && !strings.Contains(all[lines-1], last) {
				t.Fatalf("after %v: %q, want %d lines, the last with %q", at, all, lines, last)
			}
		}
		time.Sleep(49 * time.Minute)
		expect(49*time.Minute, 0, "")
		time.Sleep(2 * time.Minute)
		expect(51*time.Minute, 1, "level=INFO")
		time.Sleep(25 * time.Minute)
		expect(76*time.Minute, 2, "level=WARN")
		time.Sleep(15 * time.Minute)
		expect(91*time.Minute, 3, "left_percent=10")
		time.Sleep(10 * time.Minute)
		expect(101*time.Minute, 4, "level=ERROR")
		s.setDown(errors.New("gone"))
		s.material.Set(withLife(100 * time.Minute))
		time.Sleep(51 * time.Minute)
		expect(152*time.Minute, 5, "level=WARN")
		cancel()
		s.Close()
	})
}

// issued is what the Workload API would give: one SVID per path, all of one root.
func issued(t *testing.T, paths ...string) *workloadapi.X509Context {
	t.Helper()
	bundle, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString("east.mesh"), testRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &workloadapi.X509Context{Bundles: x509bundle.NewSet(bundle)}
	for _, path := range paths {
		id := spiffeid.RequireFromPath(bundle.TrustDomain(), path)
		leaf := &x509.Certificate{URIs: []*url.URL{id.URL()}, NotAfter: time.Now().Add(time.Hour)}
		c.SVIDs = append(c.SVIDs, &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{leaf}})
	}
	return c
}

// testRoot is any certificate: these tests verify nothing.
func testRoot(t *testing.T) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t)})
}

// An unusable answer and a lost stream leave the last material in force; the log tells once of each.
func TestLastMaterialStaysInForce(t *testing.T) {
	log := &logBuffer{}
	s := newSource(log)
	s.OnX509ContextUpdate(issued(t, "/a"))
	good, _ := s.Get()
	for range 5 {
		s.OnX509ContextWatchError(status.Error(codes.Unavailable, "connection refused"))
	}
	s.OnX509ContextUpdate(&workloadapi.X509Context{SVIDs: issued(t, "/a").SVIDs, Bundles: x509bundle.NewSet()})
	s.OnX509ContextWatchError(status.Error(codes.Canceled, "closing"))
	if now, _ := s.Get(); now != good {
		t.Fatal("material was replaced by nothing")
	}
	if n := strings.Count(log.String(), "keeping the last"); n != 2 {
		t.Fatalf("%d lines about it: %s", n, log)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "periplus_trust_failures_total" && f.GetMetric()[0].GetCounter().GetValue() == 6 {
			return
		}
	}
	t.Fatalf("want 6 failures: %v", families)
}

func TestChoiceOfIdentity(t *testing.T) {
	update := issued(t, "/a", "/b")
	for path, want := range map[string]string{"": "spiffe://east.mesh/a", "/b": "spiffe://east.mesh/b", "/c": ""} {
		m, err := materialOf(update, path)
		if got := fmt.Sprint(m != nil && m.ID.String() == want); (err == nil) != (want != "") || want != "" && got != "true" {
			t.Errorf("%q: %v, %v", path, m, err)
		}
	}
}

func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
