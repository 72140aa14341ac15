package spire_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/trust/authority"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// The embedded authority answers as a SPIRE server does, call by call.
func TestAuthorityAnswersAsSPIRE(t *testing.T) {
	real := realdeps.StartSPIRE(t, realdeps.SPIREOptions{TrustDomain: "east.test"})
	west := trusttest.NewCA("west.test")
	spire := dialog(t, real.ServerSocket, west)
	embedded := dialog(t, embeddedAuthority(t), west)
	for i := range spire {
		if embedded[i] != spire[i] {
			t.Errorf("\nSPIRE:    %s\nembedded: %s", spire[i], embedded[i])
		}
	}
	t.Logf("%d calls", len(spire))
}

func embeddedAuthority(t *testing.T) (serverSocket string) {
	dir, err := os.MkdirTemp("", "au") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	c := authority.Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), DataDir: filepath.Join(dir, "data"), Log: slog.New(slog.DiscardHandler),
		ServerSocket: "unix://" + filepath.Join(dir, "s"), WorkloadSocket: "unix://" + filepath.Join(dir, "w"), CATTL: 24 * time.Hour,
	}
	go func() { done <- authority.Run(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return c.ServerSocket
}

// talk is one conversation with a server; the answers are written down without what is random.
type talk struct {
	ctx     context.Context
	bundles bundlev1.BundleClient
	entries entryv1.EntryClient
	related trustdomainv1.TrustDomainClient
	locals  localauthorityv1.LocalAuthorityClient
	west    *trusttest.CA
	lines   []string
}

func dialog(t *testing.T, socket string, west *trusttest.CA) []string {
	t.Helper()
	conn, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	k := &talk{
		ctx: ctx, bundles: bundlev1.NewBundleClient(conn), entries: entryv1.NewEntryClient(conn),
		related: trustdomainv1.NewTrustDomainClient(conn), locals: localauthorityv1.NewLocalAuthorityClient(conn), west: west,
	}
	k.aboutBundles()
	k.aboutEntries()
	k.aboutRelationships()
	k.aboutDeleting()
	k.aboutAuthorities()
	return k.lines
}

func (k *talk) say(what string, err error, results ...string) {
	k.lines = append(k.lines, fmt.Sprintf("%s: %s %s", what, status.Code(err), strings.Join(results, " ")))
}

func code(s *types.Status) string { return codes.Code(s.GetCode()).String() }

func (k *talk) bundle(domain string, sequence uint64) *types.Bundle {
	return &types.Bundle{TrustDomain: domain, SequenceNumber: sequence, X509Authorities: []*types.X509Certificate{{Asn1: k.west.Root().Raw}}}
}

func (k *talk) aboutBundles() {
	set := func(what string, b *types.Bundle) {
		answer, err := k.bundles.BatchSetFederatedBundle(k.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{b}})
		for _, r := range answer.GetResults() {
			k.say("set "+what, err, code(r.Status), fmt.Sprint(r.Bundle.GetSequenceNumber(), len(r.Bundle.GetX509Authorities()), r.Bundle.GetRefreshHint()))
		}
	}
	own, err := k.bundles.GetBundle(k.ctx, &bundlev1.GetBundleRequest{})
	k.say("own", err, own.GetTrustDomain(), fmt.Sprint(own.GetSequenceNumber() > 0, len(own.GetX509Authorities())))
	set("the own one", k.bundle("east.test", 1))
	set("no domain's", k.bundle("", 1))
	set("a bad name's", k.bundle("West Test", 1))
	set("nonsense", &types.Bundle{TrustDomain: "west.test", X509Authorities: []*types.X509Certificate{{Asn1: []byte("x")}}})
	set("an empty one", &types.Bundle{TrustDomain: "empty.test"})
	set("west's", k.bundle("west.test", 5))
	set("an older one", k.bundle("west.test", 3))
	hinted := k.bundle("spiffe://west.test", 6)
	hinted.RefreshHint = 77
	set("one with a hint", hinted)
	created, err := k.bundles.BatchCreateFederatedBundle(k.ctx, &bundlev1.BatchCreateFederatedBundleRequest{Bundle: []*types.Bundle{k.bundle("west.test", 9), k.bundle("north.test", 9)}})
	for _, r := range created.GetResults() {
		k.say("create", err, code(r.Status), fmt.Sprint(r.Bundle.GetSequenceNumber()))
	}
	for _, name := range []string{"west.test", "nobody.test", "east.test"} {
		b, err := k.bundles.GetFederatedBundle(k.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: name})
		k.say("get "+name, err, fmt.Sprint(b.GetSequenceNumber(), b.GetRefreshHint(), len(b.GetX509Authorities())))
	}
	list, err := k.bundles.ListFederatedBundles(k.ctx, &bundlev1.ListFederatedBundlesRequest{OutputMask: &types.BundleMask{}})
	var names []string
	for _, b := range list.GetBundles() {
		names = append(names, fmt.Sprint(b.TrustDomain, b.SequenceNumber))
	}
	slices.Sort(names)
	k.say("list", err, names...)
}

func entryFor(path string, names ...string) *types.Entry {
	return &types.Entry{
		SpiffeId: &types.SPIFFEID{TrustDomain: "east.test", Path: path}, ParentId: &types.SPIFFEID{TrustDomain: "east.test", Path: "/node"},
		Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}}, FederatesWith: names,
	}
}

func (k *talk) aboutEntries() {
	create := func(what string, edit func(*types.Entry)) string {
		e := entryFor("/cart")
		edit(e)
		answer, err := k.entries.BatchCreateEntry(k.ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{e}})
		id := ""
		for _, r := range answer.GetResults() {
			k.say("entry "+what, err, code(r.Status), fmt.Sprint(r.Entry.GetFederatesWith(), r.Entry != nil, r.Entry.GetRevisionNumber(), r.Entry.GetX509SvidTtl()))
			id = r.Entry.GetId()
		}
		return id
	}
	create("without selectors", func(e *types.Entry) { e.Selectors = nil })
	create("without parent", func(e *types.Entry) { e.ParentId = nil })
	create("of another domain", func(e *types.Entry) { e.SpiffeId.TrustDomain = "west.test" })
	create("with a parent of another domain", func(e *types.Entry) { e.ParentId.TrustDomain = "west.test" })
	create("without path", func(e *types.Entry) { e.SpiffeId.Path = "" })
	create("with a selector of no type", func(e *types.Entry) { e.Selectors[0].Type = "" })
	create("that federates with a stranger", func(e *types.Entry) { e.FederatesWith = []string{"nobody.test"} })
	create("that federates with the own domain", func(e *types.Entry) { e.FederatesWith = []string{"east.test"} })
	create("that federates twice", func(e *types.Entry) { e.SpiffeId.Path, e.FederatesWith = "/twice", []string{"west.test", "west.test"} })
	id := create("as it should be", func(e *types.Entry) { e.FederatesWith = []string{"west.test"} })
	create("again", func(e *types.Entry) { e.X509SvidTtl = 60 })
	change := func(what string, e *types.Entry, mask *types.EntryMask) {
		answer, err := k.entries.BatchUpdateEntry(k.ctx, &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{e}, InputMask: mask})
		for _, r := range answer.GetResults() {
			k.say("update "+what, err, code(r.Status), fmt.Sprint(r.Entry.GetFederatesWith(), r.Entry.GetRevisionNumber(), r.Entry.GetX509SvidTtl(), len(r.Entry.GetSelectors())))
		}
	}
	federates := &types.EntryMask{FederatesWith: true}
	change("with a stranger", &types.Entry{Id: id, FederatesWith: []string{"nobody.test"}}, federates)
	change("nothing", &types.Entry{Id: "none", FederatesWith: []string{"west.test"}}, federates)
	change("to two domains", &types.Entry{Id: id, FederatesWith: []string{"north.test", "west.test"}}, federates)
	change("to the same", &types.Entry{Id: id, FederatesWith: []string{"north.test", "west.test"}}, federates)
	change("the TTL", &types.Entry{Id: id, X509SvidTtl: 90}, &types.EntryMask{X509SvidTtl: true})
}

func (k *talk) aboutRelationships() {
	spiffe := func(url, id string) *types.FederationRelationship {
		return &types.FederationRelationship{TrustDomain: "west.test", BundleEndpointUrl: url, BundleEndpointProfile: &types.FederationRelationship_HttpsSpiffe{
			HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: id},
		}}
	}
	const url, id = "https://127.0.0.1:1/", "spiffe://west.test/spire/server"
	own, bare, unknown := spiffe(url, id), spiffe(url, id), spiffe(url, id)
	own.TrustDomain, bare.BundleEndpointProfile, unknown.TrustDomain = "east.test", nil, "north.test"
	create := func(what string, r *types.FederationRelationship) {
		answer, err := k.related.BatchCreateFederationRelationship(k.ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{FederationRelationships: []*types.FederationRelationship{r}})
		for _, r := range answer.GetResults() {
			k.say("relationship "+what, err, code(r.Status), fmt.Sprint(r.FederationRelationship.GetBundleEndpointUrl(), r.FederationRelationship.GetTrustDomainBundle().GetSequenceNumber()))
		}
	}
	create("over http", spiffe("http://x/", id))
	create("without host", spiffe("https://", id))
	create("with a user", spiffe("https://u@x/", id))
	create("with no ID", spiffe(url, ""))
	create("without profile", bare)
	create("with the own domain", own)
	create("as it should be", spiffe(url, id))
	create("again", spiffe(url, id))
	change := func(what string, r *types.FederationRelationship) {
		answer, err := k.related.BatchUpdateFederationRelationship(k.ctx, &trustdomainv1.BatchUpdateFederationRelationshipRequest{
			FederationRelationships: []*types.FederationRelationship{r}, InputMask: &types.FederationRelationshipMask{BundleEndpointUrl: true, BundleEndpointProfile: true},
		})
		for _, r := range answer.GetResults() {
			k.say("change "+what, err, code(r.Status), r.FederationRelationship.GetBundleEndpointUrl())
		}
	}
	change("the URL", spiffe("https://127.0.0.1:2/", id))
	change("of nobody", unknown)
	for _, name := range []string{"west.test", "north.test"} {
		r, err := k.related.GetFederationRelationship(k.ctx, &trustdomainv1.GetFederationRelationshipRequest{TrustDomain: name})
		k.say("relationship with "+name, err, fmt.Sprint(r.GetBundleEndpointUrl(), r.GetHttpsSpiffe().GetEndpointSpiffeId(), r.GetTrustDomainBundle().GetSequenceNumber()))
	}
}

func (k *talk) aboutDeleting() {
	remove := func(name string, mode bundlev1.BatchDeleteFederatedBundleRequest_Mode) {
		answer, err := k.bundles.BatchDeleteFederatedBundle(k.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: []string{name}, Mode: mode})
		for _, r := range answer.GetResults() {
			k.say(fmt.Sprint("delete ", name, " ", mode), err, code(r.Status), r.TrustDomain)
		}
	}
	remove("nobody.test", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE)
	remove("east.test", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE)
	remove("west.test", bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT)
	for range 2 {
		answer, err := k.related.BatchDeleteFederationRelationship(k.ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{TrustDomains: []string{"west.test"}})
		for _, r := range answer.GetResults() {
			k.say("unrelate", err, code(r.Status), r.TrustDomain)
		}
	}
	remove("west.test", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE)
	list, err := k.entries.ListEntries(k.ctx, &entryv1.ListEntriesRequest{})
	var left []string
	for _, e := range list.GetEntries() {
		left = append(left, fmt.Sprint(e.SpiffeId.Path, e.FederatesWith))
	}
	slices.Sort(left)
	k.say("entries left", err, left...)
}

func (k *talk) aboutAuthorities() {
	show := func(what string, err error) {
		s, _ := k.locals.GetX509AuthorityState(k.ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
		own, _ := k.bundles.GetBundle(k.ctx, &bundlev1.GetBundleRequest{})
		tainted := 0
		for _, a := range own.GetX509Authorities() {
			if a.Tainted {
				tainted++
			}
		}
		k.say(what, err, fmt.Sprint(s.GetActive() != nil, s.GetPrepared() != nil, s.GetOld() != nil, len(own.GetX509Authorities()), tainted))
	}
	show("authorities", nil)
	activate := func(what, id string) {
		_, err := k.locals.ActivateX509Authority(k.ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
		show("activate "+what, err)
	}
	taint := func(what, id string) {
		_, err := k.locals.TaintX509Authority(k.ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: id})
		show("taint "+what, err)
	}
	// SPIRE goes on to show a revoked authority as the old one, and to say Internal of it; the embedded one forgets it.
	revoke := func(what, id string) {
		_, err := k.locals.RevokeX509Authority(k.ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
		own, _ := k.bundles.GetBundle(k.ctx, &bundlev1.GetBundleRequest{})
		k.say("revoke "+what, err, fmt.Sprint(len(own.GetX509Authorities())))
	}
	state, _ := k.locals.GetX509AuthorityState(k.ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	first := state.GetActive().GetAuthorityId()
	activate("nothing", "")
	activate("a stranger", "abcd")
	taint("the active one", first)
	revoke("the active one", first)
	prepared, err := k.locals.PrepareX509Authority(k.ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
	show("prepare", err)
	taint("the prepared one", prepared.GetPreparedAuthority().GetAuthorityId())
	activate("the active one", first)
	activate("the prepared one", prepared.GetPreparedAuthority().GetAuthorityId())
	revoke("an untainted one", first)
	taint("the old one", first)
	taint("it again", first)
	revoke("the tainted one", first)
}
