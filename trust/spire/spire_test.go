package spire_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/spire"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFederatedDomainsMeetBothWays(t *testing.T) {
	east, west, other := start(t, "east.mesh", 0), start(t, "west.mesh", 0), start(t, "other.mesh", 0)
	if meet(east, west) == nil {
		t.Fatal("met before they were federated")
	}
	federate(t, east, west)
	for _, pair := range [][2]*domain{{east, west}, {west, east}} {
		if err := meet(pair[0], pair[1]); err != nil {
			t.Fatalf("%s to %s: %v", pair[0].td.Name(), pair[1].td.Name(), err)
		}
	}
	for _, pair := range [][2]*domain{{east, other}, {other, east}} {
		if meet(pair[0], pair[1]) == nil {
			t.Fatalf("%s met %s without federation", pair[0].td.Name(), pair[1].td.Name())
		}
	}
}

// SVIDs live three seconds and the root is replaced, all under handshakes without a pause: none fails.
func TestRotationInterruptsNothing(t *testing.T) {
	east, west := start(t, "east.mesh", 3*time.Second), start(t, "west.mesh", 3*time.Second)
	federate(t, east, west)
	ctx, stop := context.WithCancel(t.Context())
	var handshakes atomic.Int64
	var running sync.WaitGroup
	for _, pair := range [][2]*domain{{east, west}, {west, east}} {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := meet(pair[0], pair[1]); err != nil {
					t.Errorf("after %d handshakes: %v", handshakes.Load(), err)
					return
				}
				handshakes.Add(1)
			}
		})
	}
	east.rotate(t, west)
	for range 3 {
		<-west.changed(t)
	}
	stop()
	running.Wait()
	t.Logf("%d handshakes", handshakes.Load())
}

// changed closes when the workload has another SVID.
func (d *domain) changed(t *testing.T) <-chan struct{} {
	done := make(chan struct{})
	before, next := d.source.Get()
	go func() {
		defer close(done)
		for m := before; m.Certificate.Leaf.Equal(before.Certificate.Leaf); m, next = d.source.Get() {
			select {
			case <-next:
			case <-time.After(10 * time.Second):
				t.Error("the SVID was not renewed")
				return
			}
		}
	}()
	return done
}

// rotate replaces the root as an operator would: prepare, spread, activate, taint, revoke, spread.
func (d *domain) rotate(t *testing.T, other *domain) {
	t.Helper()
	conn, err := grpc.NewClient(d.config.ServerSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	api := localauthorityv1.NewLocalAuthorityClient(conn)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	made, err := api.PrepareX509Authority(t.Context(), &localauthorityv1.PrepareX509AuthorityRequest{})
	must(err)
	other.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{d.bundle(t)}})
	other.trusts(t, d, 2)
	state, err := api.GetX509AuthorityState(t.Context(), &localauthorityv1.GetX509AuthorityStateRequest{})
	must(err)
	before, _ := d.source.Get()
	_, err = api.RevokeX509Authority(t.Context(), &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: state.Active.AuthorityId})
	if err == nil {
		t.Fatal("the active root was revoked")
	}
	_, err = api.ActivateX509Authority(t.Context(), &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: made.PreparedAuthority.AuthorityId})
	must(err)
	_, err = api.TaintX509Authority(t.Context(), &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: state.Active.AuthorityId})
	must(err)
	d.renewed(t, before, made.PreparedAuthority.AuthorityId)
	_, err = api.RevokeX509Authority(t.Context(), &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: state.Active.AuthorityId})
	must(err)
	other.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{d.bundle(t)}})
	other.trusts(t, d, 1)
}

// renewed waits until the workload's SVID is signed by the authority.
func (d *domain) renewed(t *testing.T, before *trust.Material, authority string) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		m, next := d.source.Get()
		if m != before && fmt.Sprintf("%x", m.Certificate.Leaf.AuthorityKeyId) == authority {
			return
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatal("no SVID of the new root")
		}
	}
}

func TestReconcileIsIdempotentAndDeletesOnlyItsOwn(t *testing.T) {
	east, west, south := start(t, "east.mesh", 0), start(t, "west.mesh", 0), start(t, "south.mesh", 0)
	// south is an operator's: set without remembering.
	east.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{south.bundle(t)}})

	var remembered []spiffeid.TrustDomain
	desired := spire.Desired{
		Bundles:  []spire.ForeignBundle{west.bundle(t)},
		Remember: func(all []spiffeid.TrustDomain) error { remembered = all; return nil },
	}
	status := east.reconcile(t, desired)
	if !slices.Equal(status.Managed, []spiffeid.TrustDomain{west.td}) || !slices.Equal(remembered, status.Managed) || status.Updated != 1 {
		t.Fatalf("first: %+v, remembered %v", status, remembered)
	}
	if d := status.Domains[west.td]; d.Sequence != 1 || d.Authorities != 1 || !strings.HasPrefix(d.Delivery, "mesh") || d.Problem != "" {
		t.Fatalf("west: %+v", d)
	}
	desired.Managed = status.Managed
	if status = east.reconcile(t, desired); status.Updated != 0 || status.Entries != 1 {
		t.Fatalf("second: %+v", status)
	}
	if got := status.Sequences(); len(got) != 2 || got["west.mesh"] != 1 {
		t.Fatalf("sequences: %v", got)
	}
	// Nothing is known: nothing is deleted.
	if status = east.reconcile(t, spire.Desired{Managed: desired.Managed}); len(status.Domains) != 2 {
		t.Fatalf("unknown: %+v", status)
	}
	// What is desired of west was refused: that is not known either.
	status = east.reconcile(t, spire.Desired{Managed: desired.Managed, Complete: true, Keep: []spiffeid.TrustDomain{west.td}})
	if len(status.Domains) != 2 || len(status.Managed) != 1 {
		t.Fatalf("refused: %+v", status)
	}
	status = east.reconcile(t, spire.Desired{Managed: desired.Managed, Complete: true})
	if _, there := status.Domains[south.td]; !there || len(status.Domains) != 1 || len(status.Managed) != 0 {
		t.Fatalf("complete: %+v", status)
	}
	east.trusts(t, west, 0)
	east.trusts(t, south, 1)
}

// What must not be taken is told and changes nothing (fake endpoints, compromised controllers).
func TestReconcileNeverWidensTrust(t *testing.T) {
	east := start(t, "east.mesh", 0)
	ca, stranger := trusttest.NewCA("west.mesh"), trusttest.NewCA("west.mesh")
	west := func(jwks []byte) spire.Desired {
		return spire.Desired{Bundles: []spire.ForeignBundle{{TrustDomain: ca.TrustDomain, JWKS: jwks}}, Managed: []spiffeid.TrustDomain{ca.TrustDomain}}
	}
	good := ca.JWKS(5)
	if p := east.reconcile(t, west(good)).Domains[ca.TrustDomain].Problem; p != "" {
		t.Fatal(p)
	}
	for name, row := range map[string]struct {
		desired spire.Desired
		want    string
	}{
		"older":             {west(ca.JWKS(4)), "holds 5"},
		"other keys":        {west(stranger.JWKS(5)), "other keys"},
		"without keys":      {west([]byte(`{"keys":[],"spiffe_sequence":6}`)), "no X.509 root"},
		"another domain's":  {west(trusttest.NewCA("rogue.mesh").JWKS(6)), "rogue.mesh"},
		"too large":         {west(append(ca.JWKS(6), make([]byte, 2<<20)...)), "limit"},
		"somebody else set": {spire.Desired{Bundles: west(stranger.JWKS(6)).Bundles}, "shares no root"},
	} {
		status := east.reconcile(t, row.desired)
		d := status.Domains[ca.TrustDomain]
		if !strings.Contains(d.Problem, row.want) || d.Sequence != 5 {
			t.Errorf("%s: %+v, want %q", name, d, row.want)
		}
	}
	own := spire.Desired{Bundles: []spire.ForeignBundle{{TrustDomain: east.td, JWKS: trusttest.NewCA("east.mesh").JWKS(9)}}}
	if d := east.reconcile(t, own).Domains[east.td]; !strings.Contains(d.Problem, "own trust domain") {
		t.Errorf("own: %+v", d)
	}
	ca.Rotate()
	if d := east.reconcile(t, west(ca.JWKS(6))).Domains[ca.TrustDomain]; d.Sequence != 6 || d.Authorities != 2 || d.Problem != "" {
		t.Errorf("newer: %+v", d)
	}
}

func TestRelationshipNeedsAnEndpoint(t *testing.T) {
	east, ca := start(t, "east.mesh", 0), trusttest.NewCA("west.mesh")
	f := spire.ForeignBundle{TrustDomain: ca.TrustDomain, JWKS: ca.JWKS(1), Endpoint: spire.Endpoint{
		URL: "https://west.example:8443/bundle", ID: spiffeid.RequireFromPath(ca.TrustDomain, "/spire/server"),
	}}
	managed := []spiffeid.TrustDomain{ca.TrustDomain}
	for range 2 {
		if d := east.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{f}, Managed: managed}).Domains[ca.TrustDomain]; d.Delivery != "endpoint "+f.Endpoint.URL {
			t.Fatalf("got %+v", d)
		}
	}
	f.Endpoint.URL = "https://elsewhere.example/bundle"
	if d := east.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{f}, Managed: managed}).Domains[ca.TrustDomain]; d.Delivery != "endpoint "+f.Endpoint.URL {
		t.Fatalf("moved: %+v", d)
	}
	if s := east.reconcile(t, spire.Desired{Managed: managed, Complete: true}); len(s.Domains) != 0 {
		t.Fatalf("removed: %+v", s)
	}
	f.Endpoint.URL = "http://west.example/"
	if _, err := east.client.Reconcile(t.Context(), spire.Desired{Bundles: []spire.ForeignBundle{f}}); err == nil || !strings.Contains(err.Error(), "https") {
		t.Fatalf("plain http: %v", err)
	}
}

// A server that has fetched a newer bundle from the endpoint itself is ahead of the mesh, which is no problem and is not
// undone; without a relationship it is one.
func TestServerMayBeAheadByItsEndpoint(t *testing.T) {
	east, ca := start(t, "east.mesh", 0), trusttest.NewCA("west.mesh")
	f := spire.ForeignBundle{TrustDomain: ca.TrustDomain, JWKS: ca.JWKS(1), Endpoint: spire.Endpoint{
		URL: "https://west.example:8443/bundle", ID: spiffeid.RequireFromPath(ca.TrustDomain, "/spire/server"),
	}}
	at := func(sequence uint64, problem string) {
		t.Helper()
		f.JWKS = ca.JWKS(sequence)
		d := east.reconcile(t, spire.Desired{Bundles: []spire.ForeignBundle{f}, Managed: []spiffeid.TrustDomain{ca.TrustDomain}}).Domains[ca.TrustDomain]
		if want := max(sequence, 5); d.Sequence != want || !strings.Contains(d.Problem, problem) || problem == "" && d.Problem != "" {
			t.Fatalf("desired %d: %+v", sequence, d)
		}
	}
	at(5, "")
	at(1, "")
	f = spire.ForeignBundle{TrustDomain: ca.TrustDomain}
	east.reconcile(t, spire.Desired{Managed: []spiffeid.TrustDomain{ca.TrustDomain}, Complete: true})
	at(5, "")
	at(1, "holds 5")
}

func TestEnsureEntries(t *testing.T) {
	east := start(t, "east.mesh", 0)
	e := east.entry("/ns/shop/sa/cart")
	e.TTL = 30 * time.Second
	two := east.entry("/ns/shop/sa/two")
	two.Selectors = []string{"unix:uid:54321"} // not this process: its SVIDs stay one
	east.ensure(t, e, two)
	east.ensure(t, e, two)
	if s := east.reconcile(t, spire.Desired{}); s.Entries != 2 {
		t.Fatalf("%d entries, want 2", s.Entries)
	}
	deadline := time.After(5 * time.Second)
	for {
		m, next := east.source.Get()
		if time.Until(m.Certificate.Leaf.NotAfter) < time.Minute {
			return
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatal("the new TTL never came")
		}
	}
}

func TestEnsureEntriesRefuses(t *testing.T) {
	east := start(t, "east.mesh", 0)
	for name, edit := range map[string]func(*spire.Entry){
		"no parent":      func(e *spire.Entry) { e.ParentID = spiffeid.ID{} },
		"no selectors":   func(e *spire.Entry) { e.Selectors = nil },
		"half selector":  func(e *spire.Entry) { e.Selectors = []string{"unix"} },
		"foreign domain": func(e *spire.Entry) { e.ID = spiffeid.RequireFromString("spiffe://west.mesh/a") },
	} {
		e := east.entry("/x")
		edit(&e)
		if err := east.client.EnsureEntries(t.Context(), []spire.Entry{e}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := spire.Dial("relative/path"); err == nil {
		t.Error("a relative socket path was taken")
	}
}
