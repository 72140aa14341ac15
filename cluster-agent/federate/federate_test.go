package federate

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/spire"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// server is a SPIRE server that says what the test wants.
type server struct {
	own       *trust.Bundle
	status    spire.Status
	failure   error
	reconcile error // of some domains
	desired   spire.Desired
}

func (s *server) OwnBundle(context.Context) (*trust.Bundle, error) { return s.own, s.failure }

func (s *server) Reconcile(_ context.Context, desired spire.Desired) (spire.Status, error) {
	s.desired = desired
	if s.failure != nil {
		return spire.Status{}, s.failure
	}
	return s.status, s.reconcile
}

var westDomain = spiffeid.RequireTrustDomainFromString("west.test")

func fixture(t *testing.T, edit func(*Config)) (*Federator, *server, *trust.Material) {
	t.Helper()
	ca := trusttest.NewCA("east.test")
	s := &server{own: trust.NewBundle(ca.TrustDomain, 3, ca.Roots(), nil)}
	s.status = spire.Status{Own: spire.DomainStatus{Sequence: 3, Authorities: 1}, Domains: map[spiffeid.TrustDomain]spire.DomainStatus{westDomain: {Sequence: 5, Authorities: 1}}}
	store := new(mesh.Store)
	material := ca.SVID("/periplus/agent", time.Hour)
	c := Config{
		Server: s, Source: trust.FixedSource(material), Table: own.New(store, own.Owner{Cluster: "east", Domain: ca.TrustDomain}), Store: store,
		Plane: spiffeid.RequireTrustDomainFromString("plane.test"), PlaneBundle: func() []byte { return nil }, Complete: func() bool { return true },
		DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
	if edit != nil {
		edit(&c)
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f, s, material
}

func (f *Federator) look(t *testing.T, material *trust.Material) {
	t.Helper()
	snapshot, _ := f.config.Store.Latest()
	f.note(t.Context(), f.once(t.Context(), material, snapshot))
}

func TestReport(t *testing.T) {
	f, s, material := fixture(t, nil)
	now := time.Now()
	if r := f.Report(now, nil); r.GetDoneAgeMs() != -1 || len(r.GetBundles()) != 0 {
		t.Errorf("before the first look: %v", r)
	}
	f.look(t, material)
	first := f.Status().Since[westDomain]
	f.look(t, material)
	if again := f.Status().Since[westDomain]; again != first {
		t.Errorf("the same sequence is held since %v, then since %v", first, again)
	}
	s.status.Domains[westDomain] = spire.DomainStatus{Sequence: 6, Authorities: 2}
	before := f.Status()
	s.status.Domains = map[spiffeid.TrustDomain]spire.DomainStatus{westDomain: {Sequence: 7, Authorities: 2, Problem: "odd"}}
	f.look(t, material)
	if !f.Status().Since[westDomain].After(before.Since[westDomain]) {
		t.Error("a new sequence is as old as the one before")
	}
	r := f.Report(time.Now(), map[spiffeid.TrustDomain]string{spiffeid.RequireTrustDomainFromString("south.test"): "signed by a stranger"})
	var got []string
	for _, b := range r.GetBundles() {
		got = append(got, b.GetTrustDomain()+" "+b.GetProblem())
	}
	if want := "east.test |south.test signed by a stranger|west.test odd"; strings.Join(got, "|") != want || r.GetError() != "" {
		t.Errorf("got %q, want %q (%s)", got, want, r.GetError())
	}
}

// One domain that the server does not take hides nothing of the others.
func TestOneDomainFails(t *testing.T) {
	f, s, material := fixture(t, func(c *Config) {
		c.Refused = func() []spiffeid.TrustDomain { return []spiffeid.TrustDomain{westDomain} }
	})
	s.reconcile = errors.New(`trust domain "south.test": no`)
	f.look(t, material)
	if now := f.Status(); now.Error == "" || !now.Done.IsZero() || now.Domains[westDomain].Sequence != 5 || now.Own.Sequence != 3 {
		t.Errorf("%+v", now)
	}
	if len(s.desired.Keep) != 1 || s.desired.Keep[0] != westDomain {
		t.Errorf("keeps %v", s.desired.Keep)
	}
}

// Which domains are its own to delete is not worth the agent's life: it deletes none.
func TestDamagedMemory(t *testing.T) {
	f, s, material := fixture(t, func(c *Config) {
		if err := os.WriteFile(filepath.Join(c.DataDir, managedName), []byte(`["west.test", "no good`), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	f.look(t, material)
	if len(s.desired.Managed) != 0 || f.Status().Error != "" {
		t.Errorf("manages %v, %s", s.desired.Managed, f.Status().Error)
	}
}

// The server going away changes nothing of what is known, is told, and its return too.
func TestServerAway(t *testing.T) {
	f, s, material := fixture(t, nil)
	f.look(t, material)
	done := f.Status().Done
	s.failure = errors.New("no such socket")
	f.look(t, material)
	now := f.Status()
	if now.Error != "no such socket" || now.Done != done || now.Domains[westDomain].Sequence != 5 || f.failing == "" {
		t.Errorf("away: %+v", now)
	}
	s.failure = nil
	f.look(t, material)
	if now := f.Status(); now.Error != "" || !now.Done.After(done) || f.failing != "" {
		t.Errorf("back: %+v", now)
	}
}

func TestEndpointIsTold(t *testing.T) {
	const url = "https://spire.east.test:8443/bundle"
	f, s, material := fixture(t, func(c *Config) { c.EndpointURL, c.Paths = url, []string{"/ns"} })
	west := trusttest.NewCA("west.test")
	f.config.Store.Update(mesh.Delta{Upserts: []mesh.Object{&mesh.Federation{
		TrustDomain: westDomain, Cluster: "west", Sequence: 1, Bundle: west.JWKS(1), EndpointURL: "https://w/", EndpointID: spiffeid.RequireFromPath(westDomain, "/spire/server"),
	}}})
	f.look(t, material)
	object, _ := f.config.Table.Get(own.Trust, mesh.FederationKey("east.test"))
	if told, ok := object.(*mesh.Federation); !ok || told.EndpointURL != url || told.EndpointID.String() != "spiffe://east.test/spire/server" || told.Validate() != nil {
		t.Errorf("told %+v", object)
	}
	if len(s.desired.Bundles) != 2 || s.desired.Bundles[1].Endpoint.URL != "https://w/" || s.desired.Paths[0] != "/ns" {
		t.Errorf("desired %+v", s.desired)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration was taken")
	}
	c := f.config
	c.EndpointURL, c.Metrics = "http://plain/", prometheus.NewRegistry()
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("plain http: %v", err)
	}
}
