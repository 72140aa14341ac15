package credential

import (
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func sample(t testing.TB, cluster, leafCluster string) (*identity, error) {
	ca := trusttest.NewCA("plane.test")
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	leaf := ca.Sign(key.Public(), func(c *x509.Certificate) {
		c.URIs = []*url.URL{spiffeid.RequireFromSegments(ca.TrustDomain, "agent", leafCluster).URL()}
		c.Subject.SerialNumber = "7"
	})
	object := meshpb.Marshal(&mesh.Cluster{
		ID: mesh.ClusterID(cluster), Region: "eu", TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), State: mesh.ClusterActive,
		Networks: []mesh.NetworkRange{{Name: "n1"}},
	})
	return receive(&pb.Credential{Certificates: [][]byte{leaf.Raw}, Bundle: ca.JWKS(1), TrustDomain: "plane.test", Controllers: []string{"c:1"}}, key, object, "hash")
}

func TestStoredAndLoaded(t *testing.T) {
	i, err := sample(t, "east", "east")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if have, err := load(dir); have != nil || err != nil {
		t.Fatalf("empty folder: %v %v", have, err)
	}
	if err := save(dir, i.stored); err != nil {
		t.Fatal(err)
	}
	have, err := load(dir)
	if err != nil || have.generation() != 7 || have.cluster.ID != "east" || time.Until(have.material.Certificate.Leaf.NotAfter) <= 0 {
		t.Errorf("%+v %v", have, err)
	}
	if info, err := os.Stat(filepath.Join(dir, FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

// A damaged credential is no reason to refuse the token that replaces it.
func TestDamagedCredentialAndToken(t *testing.T) {
	c := Config{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	if err := os.WriteFile(filepath.Join(c.DataDir, FileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Obtain(t.Context(), c); err == nil || !strings.Contains(err.Error(), "new join token") {
		t.Errorf("without a token: %v", err)
	}
	c.Token = "no token"
	if _, err := Obtain(t.Context(), c); err == nil || strings.Contains(err.Error(), FileName) {
		t.Errorf("with a token: %v", err)
	}
}

func TestUnusableCredentials(t *testing.T) {
	if _, err := sample(t, "east", "west"); err == nil || !strings.Contains(err.Error(), "certificate is") {
		t.Errorf("another cluster's certificate: %v", err)
	}
	i, err := sample(t, "east", "east")
	if err != nil {
		t.Fatal(err)
	}
	other, _ := sample(t, "east", "east")
	for name, change := range map[string]func(*stored){
		"another key":     func(s *stored) { s.Key = other.stored.Key },
		"no controllers":  func(s *stored) { s.Controllers = nil },
		"no certificate":  func(s *stored) { s.Certificates = nil },
		"empty bundle":    func(s *stored) { s.Bundle = []byte(`{"keys":[],"spiffe_sequence":1}`) },
		"another plane":   func(s *stored) { s.Plane = "other.test" },
		"no cluster":      func(s *stored) { s.Cluster = nil },
		"garbage in key":  func(s *stored) { s.Key = []byte("x") },
		"garbage in cert": func(s *stored) { s.Certificates = [][]byte{[]byte("x")} },
	} {
		s := *i.stored
		change(&s)
		if _, err := s.understand(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzUnderstand(f *testing.F) {
	i, err := sample(f, "east", "east")
	if err != nil {
		f.Fatal(err)
	}
	data, _ := json.Marshal(i.stored)
	f.Add(data)
	f.Add([]byte(`{"certificates":[""],"key":"AA=="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s stored
		if json.Unmarshal(data, &s) != nil {
			return
		}
		if i, err := s.understand(); err == nil && (i.material == nil || i.cluster == nil) {
			t.Error("accepted half a credential")
		}
	})
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ have, said, want string }{
		{"a:1 b:1", "b:1 a:1", "a:1 b:1"}, {"a:1 b:1", "c:1 b:1", "b:1 c:1"}, {"a:1", "nowhere", ""}, {"a:1", "b:1 b:1", "b:1"},
	} {
		if got := strings.Join(merge(strings.Fields(c.have), strings.Fields(c.said)), " "); got != c.want {
			t.Errorf("%s, told %s: got %q, want %q", c.have, c.said, got, c.want)
		}
	}
}
