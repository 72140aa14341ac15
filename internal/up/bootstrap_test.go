package up

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// A mesh that was down for longer than an agent's credential lives registers its clusters anew: the token of the first
// start is used.
func TestResumedMeshRegistersWhatHasEnded(t *testing.T) {
	p := plan(t, Options{Clusters: 1})
	c := p.Clusters[0]
	if p.joined(c, time.Now()) {
		t.Error("an agent that never ran")
	}
	end := writeCredential(t, p.path("agent", c.Name), c.Name)
	if p.joined(c, time.Now()) {
		t.Error("a credential without the token's file, which the agent is started with")
	}
	if err := writeSecret(p.tokenFile(c), "token"); err != nil {
		t.Fatal(err)
	}
	for _, left := range []time.Duration{time.Hour, joinMargin + time.Second} {
		if !p.joined(c, end.Add(-left)) {
			t.Errorf("a credential that is good for %v is replaced", left)
		}
	}
	for _, left := range []time.Duration{joinMargin, 0, -time.Hour} {
		if p.joined(c, end.Add(-left)) {
			t.Errorf("a credential that is good for %v is kept", left)
		}
	}
	if err := os.WriteFile(filepath.Join(p.path("agent", c.Name), "credential.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p.joined(c, end.Add(-time.Hour)) {
		t.Error("a damaged credential is kept")
	}
}

// writeCredential writes what an agent keeps and returns when it ends.
func writeCredential(t *testing.T, dir, cluster string) (end time.Time) {
	t.Helper()
	ca := trusttest.NewCA("periplus.global")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := ca.Sign(key.Public(), func(c *x509.Certificate) {
		c.URIs = []*url.URL{spiffeid.RequireFromSegments(ca.TrustDomain, "agent", cluster).URL()}
	})
	data, err := json.Marshal(map[string]any{
		"version": 1, "plane": "periplus.global", "controllers": []string{"c:1"}, "bundle": ca.JWKS(1), "key": der,
		"certificates": [][]byte{leaf.Raw},
		"cluster": meshpb.Marshal(&mesh.Cluster{
			ID: mesh.ClusterID(cluster), Region: "eu-west", TrustDomain: spiffeid.RequireTrustDomainFromString(trustDomain(cluster)),
			State: mesh.ClusterActive, Networks: []mesh.NetworkRange{{Name: "n"}},
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSecret(filepath.Join(dir, "credential.json"), string(data)); err != nil {
		t.Fatal(err)
	}
	return leaf.NotAfter
}
