package serverapi

import (
	"context"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// trustDomainAPI is SPIRE's trustdomain/v1: where the bundle of a foreign domain is to be fetched. The
// relationships are kept and shown; this authority does not poll, so RefreshBundle is not implemented. The status codes
// are SPIRE's, which says Internal where others would say AlreadyExists or NotFound.
type trustDomainAPI struct {
	api.UnimplementedTrustDomainServer
	server
}

func showRelationship(s *ca.State, r *types.FederationRelationship, mask *types.FederationRelationshipMask) *types.FederationRelationship {
	full := &types.FederationRelationship{
		TrustDomain: r.TrustDomain, BundleEndpointUrl: r.BundleEndpointUrl,
		BundleEndpointProfile: r.BundleEndpointProfile, TrustDomainBundle: s.Bundles[r.TrustDomain],
	}
	shown := &types.FederationRelationship{TrustDomain: r.TrustDomain}
	copyMasked(shown, full, mask)
	return shown
}

func (a *trustDomainAPI) ListFederationRelationships(_ context.Context, q *api.ListFederationRelationshipsRequest) (*api.ListFederationRelationshipsResponse, error) {
	s := a.authority.Latest()
	page, next := pageOf(names(s.Relationships), q.PageToken, q.PageSize)
	answer := &api.ListFederationRelationshipsResponse{NextPageToken: next}
	for _, name := range page {
		answer.FederationRelationships = append(answer.FederationRelationships, showRelationship(s, s.Relationships[name], q.OutputMask))
	}
	return answer, nil
}

func (a *trustDomainAPI) GetFederationRelationship(_ context.Context, q *api.GetFederationRelationshipRequest) (*types.FederationRelationship, error) {
	name, err := a.foreign(q.TrustDomain)
	if err != nil {
		return nil, err
	}
	s := a.authority.Latest()
	r := s.Relationships[name]
	if r == nil {
		return nil, status.Errorf(codes.NotFound, "federation relationship with %q not found", name)
	}
	return showRelationship(s, r, q.OutputMask), nil
}

func (a *trustDomainAPI) BatchCreateFederationRelationship(_ context.Context, q *api.BatchCreateFederationRelationshipRequest) (*api.BatchCreateFederationRelationshipResponse, error) {
	answer := &api.BatchCreateFederationRelationshipResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, r := range q.FederationRelationships {
			made, err := a.create(s, r)
			one := &api.BatchCreateFederationRelationshipResponse_Result{Status: result(err)}
			if err == nil {
				one.FederationRelationship = showRelationship(s, made, q.OutputMask)
				if r.TrustDomainBundle == nil {
					one.FederationRelationship.TrustDomainBundle = nil // SPIRE shows what came with the call only
				}
			}
			answer.Results = append(answer.Results, one)
		}
		return nil
	})
	return answer, asStatus(err)
}

func (a *trustDomainAPI) create(s *ca.State, r *types.FederationRelationship) (*types.FederationRelationship, error) {
	name, err := a.foreign(r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	if s.Relationships[name] != nil {
		return nil, status.Errorf(codes.Internal, "federation relationship with %q exists already", name)
	}
	made := &types.FederationRelationship{TrustDomain: name}
	return made, a.put(s, made, r, nil)
}

func (a *trustDomainAPI) BatchUpdateFederationRelationship(_ context.Context, q *api.BatchUpdateFederationRelationshipRequest) (*api.BatchUpdateFederationRelationshipResponse, error) {
	answer := &api.BatchUpdateFederationRelationshipResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, r := range q.FederationRelationships {
			changed, err := a.change(s, r, q.InputMask)
			one := &api.BatchUpdateFederationRelationshipResponse_Result{Status: result(err)}
			if err == nil {
				one.FederationRelationship = showRelationship(s, changed, q.OutputMask)
			}
			answer.Results = append(answer.Results, one)
		}
		return nil
	})
	return answer, asStatus(err)
}

func (a *trustDomainAPI) change(s *ca.State, r *types.FederationRelationship, mask *types.FederationRelationshipMask) (*types.FederationRelationship, error) {
	name, err := a.foreign(r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	now := s.Relationships[name]
	if now == nil {
		return nil, status.Errorf(codes.Internal, "federation relationship with %q not found", name)
	}
	changed := &types.FederationRelationship{TrustDomain: name}
	copyMasked(changed, now, (*types.FederationRelationshipMask)(nil))
	return changed, a.put(s, changed, r, mask)
}

// put completes into with what the mask names of given, and stores it if it is right; so too the bundle that
// came with it.
func (a *trustDomainAPI) put(s *ca.State, into, given *types.FederationRelationship, mask *types.FederationRelationshipMask) error {
	copyMasked(into, given, mask)
	bundle := into.TrustDomainBundle
	into.TrustDomainBundle = nil
	if err := checkEndpoint(into); err != nil {
		return err
	}
	if bundle != nil {
		checked, err := a.checkBundle(bundle)
		if err != nil {
			return err
		}
		if checked.TrustDomain != into.TrustDomain {
			return status.Errorf(codes.InvalidArgument, "bundle is of %q, the relationship with %q", checked.TrustDomain, into.TrustDomain)
		}
		s.Bundles[into.TrustDomain] = checked
	}
	s.Relationships[into.TrustDomain] = into
	a.log.Info("federation relationship set", "trust_domain", into.TrustDomain, "url", into.BundleEndpointUrl)
	return nil
}

// checkEndpoint holds the rules of SPIFFE Federation, section 5: https, no user info, an explicit profile.
func checkEndpoint(r *types.FederationRelationship) error {
	u, err := url.Parse(r.BundleEndpointUrl)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return status.Errorf(codes.InvalidArgument, "bundle endpoint URL %q: want https://host/path without user info", r.BundleEndpointUrl)
	}
	switch profile := r.BundleEndpointProfile.(type) {
	case *types.FederationRelationship_HttpsWeb:
		return nil
	case *types.FederationRelationship_HttpsSpiffe:
		if _, err := spiffeid.FromString(profile.HttpsSpiffe.GetEndpointSpiffeId()); err != nil {
			return status.Errorf(codes.InvalidArgument, "bundle endpoint SPIFFE ID: %v", err)
		}
		return nil
	}
	return status.Error(codes.InvalidArgument, "bundle endpoint profile is missing: https_web or https_spiffe")
}

func (a *trustDomainAPI) BatchDeleteFederationRelationship(_ context.Context, q *api.BatchDeleteFederationRelationshipRequest) (*api.BatchDeleteFederationRelationshipResponse, error) {
	answer := &api.BatchDeleteFederationRelationshipResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, given := range q.TrustDomains {
			name, err := a.foreign(given)
			if err == nil && s.Relationships[name] == nil {
				err = status.Errorf(codes.NotFound, "federation relationship with %q not found", name)
			}
			if err == nil {
				delete(s.Relationships, name)
			}
			answer.Results = append(answer.Results, &api.BatchDeleteFederationRelationshipResponse_Result{Status: result(err), TrustDomain: given})
		}
		return nil
	})
	return answer, asStatus(err)
}
