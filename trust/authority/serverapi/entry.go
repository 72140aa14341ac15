package serverapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// entryAPI is SPIRE's entry/v1: who gets which identity.
type entryAPI struct {
	api.UnimplementedEntryServer
	server
}

func showEntry(e *types.Entry, mask *types.EntryMask) *types.Entry {
	shown := &types.Entry{Id: e.Id}
	copyMasked(shown, e, mask)
	return shown
}

func (a *entryAPI) GetEntry(_ context.Context, q *api.GetEntryRequest) (*types.Entry, error) {
	e := a.authority.Latest().Entries[q.Id]
	if e == nil {
		return nil, status.Errorf(codes.NotFound, "entry %q not found", q.Id)
	}
	return showEntry(e, q.OutputMask), nil
}

func (a *entryAPI) ListEntries(_ context.Context, q *api.ListEntriesRequest) (*api.ListEntriesResponse, error) {
	s := a.authority.Latest()
	var keys []string
	for _, e := range s.Ordered() {
		if passes(e, q.Filter) {
			keys = append(keys, e.Id)
		}
	}
	page, next := pageOf(keys, q.PageToken, q.PageSize)
	answer := &api.ListEntriesResponse{NextPageToken: next}
	for _, id := range page {
		answer.Entries = append(answer.Entries, showEntry(s.Entries[id], q.OutputMask))
	}
	return answer, nil
}

func (a *entryAPI) CountEntries(_ context.Context, q *api.CountEntriesRequest) (*api.CountEntriesResponse, error) {
	f := q.GetFilter()
	same := &api.ListEntriesRequest_Filter{
		BySpiffeId: f.GetBySpiffeId(), ByParentId: f.GetByParentId(), BySelectors: f.GetBySelectors(),
		ByFederatesWith: f.GetByFederatesWith(), ByHint: f.GetByHint(), ByDownstream: f.GetByDownstream(),
	}
	count := int32(0)
	for _, e := range a.authority.Latest().Entries {
		if passes(e, same) {
			count++
		}
	}
	return &api.CountEntriesResponse{Count: count}, nil
}

func (a *entryAPI) BatchCreateEntry(_ context.Context, q *api.BatchCreateEntryRequest) (*api.BatchCreateEntryResponse, error) {
	answer := &api.BatchCreateEntryResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, e := range q.Entries {
			made, err := a.create(s, e)
			r := &api.BatchCreateEntryResponse_Result{Status: result(err)}
			if made != nil { // the existing one with AlreadyExists
				r.Entry = showEntry(made, q.OutputMask)
			}
			answer.Results = append(answer.Results, r)
		}
		return nil
	})
	return answer, asStatus(err)
}

func (a *entryAPI) create(s *ca.State, e *types.Entry) (*types.Entry, error) {
	if err := a.checkEntry(s, e); err != nil {
		return nil, err
	}
	for _, have := range s.Ordered() {
		if similar(have, e) {
			return have, status.Errorf(codes.AlreadyExists, "similar entry %q exists already", have.Id)
		}
	}
	if s.Entries[e.Id] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "an entry with the ID %q exists already", e.Id)
	}
	if e.Id == "" {
		e.Id = newEntryID()
	}
	e.CreatedAt, e.RevisionNumber = time.Now().Unix(), 0
	s.Entries[e.Id] = e
	a.log.Info("entry created", "entry", e.Id, "id", e.SpiffeId)
	return e, nil
}

// similar entries would only double an SVID.
func similar(x, y *types.Entry) bool {
	return proto.Equal(x.SpiffeId, y.SpiffeId) && proto.Equal(x.ParentId, y.ParentId) &&
		slices.Equal(selectorsOf(x.Selectors), selectorsOf(y.Selectors))
}

func (a *entryAPI) BatchUpdateEntry(_ context.Context, q *api.BatchUpdateEntryRequest) (*api.BatchUpdateEntryResponse, error) {
	answer := &api.BatchUpdateEntryResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, e := range q.Entries {
			changed, err := a.change(s, e, q.InputMask)
			r := &api.BatchUpdateEntryResponse_Result{Status: result(err)}
			if err == nil {
				r.Entry = showEntry(changed, q.OutputMask)
			}
			answer.Results = append(answer.Results, r)
		}
		return nil
	})
	return answer, asStatus(err)
}

func (a *entryAPI) change(s *ca.State, e *types.Entry, mask *types.EntryMask) (*types.Entry, error) {
	now := s.Entries[e.GetId()]
	if now == nil {
		return nil, status.Errorf(codes.NotFound, "entry %q not found", e.GetId())
	}
	changed := showEntry(now, nil)
	copyMasked(changed, e, mask)
	if err := a.checkEntry(s, changed); err != nil {
		return nil, err
	}
	changed.CreatedAt, changed.RevisionNumber = now.CreatedAt, now.RevisionNumber+1
	s.Entries[now.Id] = changed
	a.log.Info("entry updated", "entry", now.Id, "id", changed.SpiffeId, "revision", changed.RevisionNumber)
	return changed, nil
}

func (a *entryAPI) BatchDeleteEntry(_ context.Context, q *api.BatchDeleteEntryRequest) (*api.BatchDeleteEntryResponse, error) {
	answer := &api.BatchDeleteEntryResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, id := range q.Ids {
			var err error
			if s.Entries[id] == nil {
				err = status.Errorf(codes.NotFound, "entry %q not found", id)
			} else {
				delete(s.Entries, id)
				a.log.Info("entry deleted", "entry", id)
			}
			answer.Results = append(answer.Results, &api.BatchDeleteEntryResponse_Result{Status: result(err), Id: id})
		}
		return nil
	})
	return answer, asStatus(err)
}

// checkEntry refuses what could not be issued and brings the federated names into normal form.
func (a *server) checkEntry(s *ca.State, e *types.Entry) error {
	invalid := func(format string, args ...any) error {
		return status.Errorf(codes.InvalidArgument, "entry: "+format, args...)
	}
	id, err := idOf(e.GetSpiffeId())
	switch {
	case err != nil:
		return invalid("SPIFFE ID: %v", err)
	case !id.MemberOf(a.authority.TrustDomain()) || id.Path() == "":
		return invalid("SPIFFE ID %q needs a path and the trust domain %q", id, a.authority.TrustDomain().Name())
	case len(e.Selectors) == 0:
		return invalid("%q has no selectors, so it would match every process", id)
	case e.X509SvidTtl < 0:
		return invalid("%q has a negative TTL", id)
	}
	if parent, err := idOf(e.ParentId); err != nil || !parent.MemberOf(a.authority.TrustDomain()) {
		return invalid("%q needs a parent ID in the trust domain %q", id, a.authority.TrustDomain().Name())
	}
	for _, selector := range e.Selectors {
		if selector.GetType() == "" || selector.GetValue() == "" {
			return invalid("%q has a selector without type or value", id)
		}
	}
	return a.checkFederation(s, e)
}

func (a *server) checkFederation(s *ca.State, e *types.Entry) error {
	var known []string
	for _, given := range e.FederatesWith {
		domain, err := spiffeid.TrustDomainFromString(given)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "entry: federates with %q: %v", given, err)
		}
		name := domain.Name()
		if s.Bundles[name] == nil && domain != a.authority.TrustDomain() { // SPIRE takes the own domain, without effect
			return status.Errorf(codes.Internal, "entry: unable to find federated bundle of %q: set it first", name)
		}
		known = append(known, name)
	}
	slices.Sort(known)
	e.FederatesWith = slices.Compact(known)
	return nil
}

func idOf(id *types.SPIFFEID) (spiffeid.ID, error) {
	return spiffeid.FromString("spiffe://" + id.GetTrustDomain() + id.GetPath())
}

func federates(e *types.Entry, name string) bool { return slices.Contains(e.FederatesWith, name) }

// dissociate returns the entry without the domain.
func dissociate(e *types.Entry, name string) *types.Entry {
	changed := showEntry(e, nil)
	changed.FederatesWith = slices.DeleteFunc(slices.Clone(e.FederatesWith), func(n string) bool { return n == name })
	changed.RevisionNumber++
	return changed
}

// newEntryID is a random UUID (RFC 9562, section 5.4).
func newEntryID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
