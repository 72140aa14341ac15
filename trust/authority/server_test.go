package authority_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func foreign(name string, sequence uint64) *types.Bundle {
	return &types.Bundle{
		TrustDomain: name, SequenceNumber: sequence,
		X509Authorities: []*types.X509Certificate{{Asn1: trusttest.NewCA(name).Root().Raw}},
	}
}

func (f *fixture) set(t *testing.T, bundles ...*types.Bundle) []*types.Status {
	t.Helper()
	api := bundlev1.NewBundleClient(f.dial(t, f.config.ServerSocket))
	answer, err := api.BatchSetFederatedBundle(t.Context(), &bundlev1.BatchSetFederatedBundleRequest{Bundle: bundles})
	if err != nil {
		t.Fatal(err)
	}
	var all []*types.Status
	for _, r := range answer.Results {
		all = append(all, r.Status)
	}
	return all
}

func TestEntryPagesMasksAndFilters(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	a, b, c := f.entry("/a"), f.entry("/b"), f.entry("/c")
	b.Hint, b.Downstream = "internal", true
	c.Selectors = append(c.Selectors, &types.Selector{Type: "unix", Value: "gid:7"})
	f.set(t, foreign("west.mesh", 1))
	c.FederatesWith = []string{"spiffe://west.mesh"}
	f.create(t, a, b, c)
	api := f.entries(t)

	var paged []string
	for token := ""; ; {
		page, err := api.ListEntries(t.Context(), &entryv1.ListEntriesRequest{PageSize: 2, PageToken: token, OutputMask: &types.EntryMask{SpiffeId: true}})
		if err != nil || len(page.Entries) > 2 {
			t.Fatalf("page: %v, %v", page, err)
		}
		for _, e := range page.Entries {
			if e.Selectors != nil || e.ParentId != nil || e.Id == "" {
				t.Fatalf("mask: %v", e)
			}
			paged = append(paged, e.SpiffeId.Path)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if slices.Sort(paged); !slices.Equal(paged, []string{"/a", "/b", "/c"}) {
		t.Fatalf("pages: %v", paged)
	}

	uid := a.Selectors
	type filter = entryv1.ListEntriesRequest_Filter
	selectors := func(m types.SelectorMatch_MatchBehavior, s ...*types.Selector) *filter {
		return &filter{BySelectors: &types.SelectorMatch{Selectors: s, Match: m}}
	}
	domains := func(m types.FederatesWithMatch_MatchBehavior, names ...string) *filter {
		return &filter{ByFederatesWith: &types.FederatesWithMatch{TrustDomains: names, Match: m}}
	}
	for name, row := range map[string]struct {
		filter *filter
		want   int
	}{
		"none":               {nil, 3},
		"SPIFFE ID":          {&filter{BySpiffeId: a.SpiffeId}, 1},
		"parent":             {&filter{ByParentId: a.ParentId}, 3},
		"hint":               {&filter{ByHint: wrapperspb.String("internal")}, 1},
		"downstream":         {&filter{ByDownstream: wrapperspb.Bool(false)}, 2},
		"selectors exact":    {selectors(types.SelectorMatch_MATCH_EXACT, uid...), 2},
		"selectors subset":   {selectors(types.SelectorMatch_MATCH_SUBSET, c.Selectors...), 3},
		"selectors superset": {selectors(types.SelectorMatch_MATCH_SUPERSET, c.Selectors[1]), 1},
		"selectors any":      {selectors(types.SelectorMatch_MATCH_ANY, uid...), 3},
		"domains any":        {domains(types.FederatesWithMatch_MATCH_ANY, "west.mesh"), 1},
		"domains exact":      {domains(types.FederatesWithMatch_MATCH_EXACT), 2},
	} {
		page, err := api.ListEntries(t.Context(), &entryv1.ListEntriesRequest{Filter: row.filter})
		if err != nil || len(page.Entries) != row.want {
			t.Errorf("%s: %d entries, %v; want %d", name, len(page.GetEntries()), err, row.want)
		}
	}
	count, err := api.CountEntries(t.Context(), &entryv1.CountEntriesRequest{Filter: &entryv1.CountEntriesRequest_Filter{BySpiffeId: b.SpiffeId}})
	if err != nil || count.Count != 1 {
		t.Fatalf("count: %v, %v", count, err)
	}
}

func TestEntryUpdateKeepsWhatTheMaskLeavesOut(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	id := f.create(t, f.entry("/a"))[0]
	f.set(t, foreign("west.mesh", 1))
	api := f.entries(t)
	before, err := api.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := api.BatchUpdateEntry(t.Context(), &entryv1.BatchUpdateEntryRequest{
		Entries:   []*types.Entry{{Id: id, FederatesWith: []string{"west.mesh"}, Hint: "not in the mask"}, {Id: "none"}},
		InputMask: &types.EntryMask{FederatesWith: true},
	})
	if err != nil || answer.Results[0].Status.Code != 0 || answer.Results[1].Status.Code != int32(codes.NotFound) {
		t.Fatalf("update: %v, %v", answer, err)
	}
	want := proto.CloneOf(before)
	want.FederatesWith, want.RevisionNumber = []string{"west.mesh"}, 1
	if got := answer.Results[0].Entry; !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestEntryRefusals(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	f.create(t, f.entry("/a"))
	for name, row := range map[string]struct {
		edit func(*types.Entry)
		want codes.Code
	}{
		"the same again":        {func(e *types.Entry) {}, codes.AlreadyExists},
		"foreign domain":        {func(e *types.Entry) { e.SpiffeId.TrustDomain = "west.mesh" }, codes.InvalidArgument},
		"no path":               {func(e *types.Entry) { e.SpiffeId.Path = "" }, codes.InvalidArgument},
		"bad path":              {func(e *types.Entry) { e.SpiffeId.Path = "/a/../b" }, codes.InvalidArgument},
		"no ID":                 {func(e *types.Entry) { e.SpiffeId = nil }, codes.InvalidArgument},
		"no parent":             {func(e *types.Entry) { e.ParentId = nil }, codes.InvalidArgument},
		"no selectors":          {func(e *types.Entry) { e.Selectors = nil }, codes.InvalidArgument},
		"half a selector":       {func(e *types.Entry) { e.Selectors[0].Value = "" }, codes.InvalidArgument},
		"unknown domain":        {func(e *types.Entry) { e.FederatesWith = []string{"west.mesh"} }, codes.Internal},
		"federates with nobody": {func(e *types.Entry) { e.FederatesWith = []string{"A b"} }, codes.InvalidArgument},
	} {
		e := f.entry("/b")
		if row.want == codes.AlreadyExists {
			e = f.entry("/a")
		}
		row.edit(e)
		answer, err := f.entries(t).BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{e}})
		if err != nil || codes.Code(answer.Results[0].Status.Code) != row.want {
			t.Errorf("%s: %v, %v; want %v", name, answer, err, row.want)
		}
	}
}

func TestFederatedBundles(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	api := bundlev1.NewBundleClient(f.dial(t, f.config.ServerSocket))
	rubbish := &types.Bundle{TrustDomain: "west.mesh", X509Authorities: []*types.X509Certificate{{Asn1: []byte{1}}}}
	got := f.set(t, foreign("west.mesh", 3), foreign("south.mesh", 1), foreign("east.mesh", 9), rubbish, &types.Bundle{TrustDomain: "no good"})
	for i, want := range []codes.Code{codes.OK, codes.OK, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument} {
		if codes.Code(got[i].Code) != want {
			t.Errorf("bundle %d: %v, want %v", i, got[i], want)
		}
	}
	if n, err := api.CountBundles(t.Context(), &bundlev1.CountBundlesRequest{}); err != nil || n.Count != 3 {
		t.Fatalf("count: %v, %v", n, err)
	}
	list, err := api.ListFederatedBundles(t.Context(), &bundlev1.ListFederatedBundlesRequest{PageSize: 1, OutputMask: &types.BundleMask{SequenceNumber: true}})
	if err != nil || len(list.Bundles) != 1 || list.Bundles[0].X509Authorities != nil || list.NextPageToken == "" {
		t.Fatalf("page: %v, %v", list, err)
	}
	west, err := api.GetFederatedBundle(t.Context(), &bundlev1.GetFederatedBundleRequest{TrustDomain: "west.mesh"})
	if err != nil || west.SequenceNumber != 3 {
		t.Fatalf("west: %v, %v", west, err)
	}
	own, err := api.GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	if err != nil || own.TrustDomain != "east.mesh" || own.SequenceNumber != 1 || len(own.X509Authorities) != 1 || own.RefreshHint != 300 {
		t.Fatalf("own: %v, %v", own, err)
	}
	if _, err := api.AppendBundle(t.Context(), &bundlev1.AppendBundleRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatalf("append: %v", err)
	}
}

func TestDeleteModes(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	f.set(t, foreign("west.mesh", 1), foreign("south.mesh", 1))
	a, b := f.entry("/a"), f.entry("/b")
	a.FederatesWith, b.FederatesWith = []string{"south.mesh", "west.mesh"}, []string{"south.mesh"}
	ids := f.create(t, a, b)
	api := bundlev1.NewBundleClient(f.dial(t, f.config.ServerSocket))
	remove := func(name string, mode bundlev1.BatchDeleteFederatedBundleRequest_Mode, want codes.Code) {
		t.Helper()
		answer, err := api.BatchDeleteFederatedBundle(t.Context(), &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: []string{name}, Mode: mode})
		if err != nil || codes.Code(answer.Results[0].Status.Code) != want {
			t.Fatalf("delete %s: %v, %v; want %v", name, answer, err, want)
		}
	}
	remove("west.mesh", bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, codes.FailedPrecondition)
	remove("west.mesh", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE, codes.OK)
	remove("west.mesh", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE, codes.NotFound)
	e, err := f.entries(t).GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: ids[0]})
	if err != nil || !slices.Equal(e.FederatesWith, []string{"south.mesh"}) {
		t.Fatalf("dissociated: %v, %v", e, err)
	}
	remove("south.mesh", bundlev1.BatchDeleteFederatedBundleRequest_DELETE, codes.OK)
	if n, err := f.entries(t).CountEntries(t.Context(), &entryv1.CountEntriesRequest{}); err != nil || n.Count != 0 {
		t.Fatalf("entries left: %v, %v", n, err)
	}
}

func TestRelationships(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	api := trustdomainv1.NewTrustDomainClient(f.dial(t, f.config.ServerSocket))
	web := &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}}
	create := func(r *types.FederationRelationship) codes.Code {
		t.Helper()
		answer, err := api.BatchCreateFederationRelationship(t.Context(), &trustdomainv1.BatchCreateFederationRelationshipRequest{
			FederationRelationships: []*types.FederationRelationship{r},
		})
		if err != nil {
			t.Fatal(err)
		}
		return codes.Code(answer.Results[0].Status.Code)
	}
	good := &types.FederationRelationship{
		TrustDomain: "west.mesh", BundleEndpointUrl: "https://west/", BundleEndpointProfile: web, TrustDomainBundle: foreign("west.mesh", 4),
	}
	for i, want := range []codes.Code{codes.OK, codes.Internal} {
		if got := create(good); got != want {
			t.Fatalf("create %d: %v, want %v", i, got, want)
		}
	}
	for name, r := range map[string]*types.FederationRelationship{
		"own domain":       {TrustDomain: "east.mesh", BundleEndpointUrl: "https://x/", BundleEndpointProfile: web},
		"plain http":       {TrustDomain: "a.mesh", BundleEndpointUrl: "http://x/", BundleEndpointProfile: web},
		"user info":        {TrustDomain: "a.mesh", BundleEndpointUrl: "https://me@x/", BundleEndpointProfile: web},
		"no profile":       {TrustDomain: "a.mesh", BundleEndpointUrl: "https://x/"},
		"another's bundle": {TrustDomain: "a.mesh", BundleEndpointUrl: "https://x/", BundleEndpointProfile: web, TrustDomainBundle: foreign("b.mesh", 1)},
	} {
		if got := create(r); got != codes.InvalidArgument {
			t.Errorf("%s: %v", name, got)
		}
	}
	spiffe := &types.FederationRelationship_HttpsSpiffe{HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: "spiffe://west.mesh/e"}}
	changed, err := api.BatchUpdateFederationRelationship(t.Context(), &trustdomainv1.BatchUpdateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{{TrustDomain: "west.mesh", BundleEndpointProfile: spiffe}},
		InputMask:               &types.FederationRelationshipMask{BundleEndpointProfile: true},
	})
	if err != nil || changed.Results[0].Status.Code != 0 {
		t.Fatalf("update: %v, %v", changed, err)
	}
	list, err := api.ListFederationRelationships(t.Context(), &trustdomainv1.ListFederationRelationshipsRequest{})
	if err != nil || len(list.FederationRelationships) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	got := list.FederationRelationships[0]
	if got.BundleEndpointUrl != "https://west/" || got.GetHttpsSpiffe() == nil || got.TrustDomainBundle.GetSequenceNumber() != 4 {
		t.Fatalf("got %v", got)
	}
	if _, err := api.RefreshBundle(t.Context(), &trustdomainv1.RefreshBundleRequest{TrustDomain: "west.mesh"}); status.Code(err) != codes.Unimplemented {
		t.Fatalf("refresh: %v", err)
	}
}

// By hand the order is prepare, activate, taint, revoke; everything else is refused and changes nothing.
func TestLocalAuthorityOrder(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	api := localauthorityv1.NewLocalAuthorityClient(f.dial(t, f.config.ServerSocket))
	first, err := api.GetX509AuthorityState(t.Context(), &localauthorityv1.GetX509AuthorityStateRequest{})
	if err != nil || first.Active == nil || first.Prepared != nil || first.Old != nil {
		t.Fatalf("first: %v, %v", first, err)
	}
	activate := func(id string) error {
		_, err := api.ActivateX509Authority(t.Context(), &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
		return err
	}
	taint := func(id string) error {
		_, err := api.TaintX509Authority(t.Context(), &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: id})
		return err
	}
	revoke := func(id string) error {
		_, err := api.RevokeX509Authority(t.Context(), &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
		return err
	}
	expect := func(what string, err error, want codes.Code) {
		t.Helper()
		if status.Code(err) != want {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	was := first.Active.AuthorityId
	expect("activate the active", activate(was), codes.InvalidArgument)
	expect("taint the active", taint(was), codes.InvalidArgument)
	expect("revoke the active", revoke(was), codes.InvalidArgument)
	expect("activate the unknown", activate("00"), codes.InvalidArgument)
	made, err := api.PrepareX509Authority(t.Context(), &localauthorityv1.PrepareX509AuthorityRequest{})
	expect("prepare", err, codes.OK)
	expect("activate", activate(made.PreparedAuthority.AuthorityId), codes.OK)
	expect("revoke the untainted", revoke(was), codes.Internal)
	expect("taint", taint(was), codes.OK)
	expect("revoke", revoke(was), codes.OK)
	last, err := api.GetX509AuthorityState(t.Context(), &localauthorityv1.GetX509AuthorityStateRequest{})
	if err != nil || last.Active.AuthorityId != made.PreparedAuthority.AuthorityId || last.Old != nil {
		t.Fatalf("last: %v, %v", last, err)
	}
}

// An SVID with most of its life before it is replaced as soon as its root is tainted, and not before.
func TestTaintRenewsAtOnce(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	f.create(t, f.entry("/a"))
	source := f.watch(t)
	before, _ := source.Get()
	api := localauthorityv1.NewLocalAuthorityClient(f.dial(t, f.config.ServerSocket))
	made, err := api.PrepareX509Authority(t.Context(), &localauthorityv1.PrepareX509AuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	id := made.PreparedAuthority.AuthorityId
	if _, err := api.ActivateX509Authority(t.Context(), &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id}); err != nil {
		t.Fatal(err)
	}
	if now, _ := source.Get(); !now.Certificate.Leaf.Equal(before.Certificate.Leaf) {
		t.Fatal("activation alone renewed the SVID")
	}
	was := fmt.Sprintf("%x", before.Certificate.Leaf.AuthorityKeyId)
	if _, err := api.TaintX509Authority(t.Context(), &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: was}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(5 * time.Second)
	for {
		now, next := source.Get()
		if fmt.Sprintf("%x", now.Certificate.Leaf.AuthorityKeyId) == id {
			return
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatal("the SVID of the tainted root was kept")
		}
	}
}
