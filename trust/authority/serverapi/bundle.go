package serverapi

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// bundleAPI is SPIRE's bundle/v1: the own bundle to read, foreign ones to set.
type bundleAPI struct {
	api.UnimplementedBundleServer
	server
}

func (a *bundleAPI) GetBundle(_ context.Context, q *api.GetBundleRequest) (*types.Bundle, error) {
	return showBundle(a.authority.Bundle(a.authority.Latest()), q.OutputMask), nil
}

func showBundle(b *types.Bundle, mask *types.BundleMask) *types.Bundle {
	shown := &types.Bundle{TrustDomain: b.TrustDomain}
	copyMasked(shown, b, mask)
	return shown
}

func (a *bundleAPI) CountBundles(context.Context, *api.CountBundlesRequest) (*api.CountBundlesResponse, error) {
	return &api.CountBundlesResponse{Count: int32(1 + len(a.authority.Latest().Bundles))}, nil
}

func (a *bundleAPI) ListFederatedBundles(_ context.Context, q *api.ListFederatedBundlesRequest) (*api.ListFederatedBundlesResponse, error) {
	s := a.authority.Latest()
	page, next := pageOf(names(s.Bundles), q.PageToken, q.PageSize)
	answer := &api.ListFederatedBundlesResponse{NextPageToken: next}
	for _, name := range page {
		answer.Bundles = append(answer.Bundles, showBundle(s.Bundles[name], q.OutputMask))
	}
	return answer, nil
}

func (a *bundleAPI) GetFederatedBundle(_ context.Context, q *api.GetFederatedBundleRequest) (*types.Bundle, error) {
	name, err := a.foreign(q.TrustDomain)
	if err != nil {
		return nil, err
	}
	b := a.authority.Latest().Bundles[name]
	if b == nil {
		return nil, status.Errorf(codes.NotFound, "bundle of %q not found", name)
	}
	return showBundle(b, q.OutputMask), nil
}

// foreign parses the name of a trust domain that is not the own one.
func (a *server) foreign(name string) (string, error) {
	domain, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return "", status.Errorf(codes.InvalidArgument, "trust domain %q is not valid: %v", name, err)
	}
	if domain == a.authority.TrustDomain() {
		return "", status.Errorf(codes.InvalidArgument, "%q is this server's own trust domain", name)
	}
	return domain.Name(), nil
}

// checkBundle returns the bundle with its name in normal form.
func (a *server) checkBundle(b *types.Bundle) (*types.Bundle, error) {
	name, err := a.foreign(b.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	for i, c := range b.X509Authorities {
		if _, err := x509.ParseCertificate(c.GetAsn1()); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "bundle of %q: X.509 authority %d: %v", name, i, err)
		}
	}
	b.TrustDomain = name
	return b, nil
}

// What a batch does with a bundle that exists, or does not.
func createBundle(s *ca.State, b *types.Bundle, _ *types.BundleMask) error {
	if s.Bundles[b.TrustDomain] != nil {
		return status.Errorf(codes.AlreadyExists, "bundle of %q exists already", b.TrustDomain)
	}
	s.Bundles[b.TrustDomain] = b
	return nil
}

func updateBundle(s *ca.State, b *types.Bundle, mask *types.BundleMask) error {
	now := s.Bundles[b.TrustDomain]
	if now == nil {
		return status.Errorf(codes.NotFound, "bundle of %q not found", b.TrustDomain)
	}
	changed := showBundle(now, nil)
	copyMasked(changed, b, mask)
	s.Bundles[b.TrustDomain] = changed
	return nil
}

func setBundle(s *ca.State, b *types.Bundle, _ *types.BundleMask) error {
	s.Bundles[b.TrustDomain] = b
	return nil
}

// put does one action with each bundle; what cannot be done is told in that bundle's result.
func (a *bundleAPI) put(action func(*ca.State, *types.Bundle, *types.BundleMask) error, bundles []*types.Bundle, input, output *types.BundleMask) ([]*api.BatchSetFederatedBundleResponse_Result, error) {
	results := make([]*api.BatchSetFederatedBundleResponse_Result, len(bundles))
	err := a.authority.Update(func(s *ca.State) error {
		for i, b := range bundles {
			checked, err := a.checkBundle(b)
			if err == nil {
				err = action(s, checked, input)
			}
			results[i] = &api.BatchSetFederatedBundleResponse_Result{Status: result(err)}
			if err == nil {
				results[i].Bundle = showBundle(s.Bundles[checked.TrustDomain], output)
				a.log.Info("federated bundle set", "trust_domain", checked.TrustDomain, "sequence", checked.SequenceNumber)
			}
		}
		return nil
	})
	return results, asStatus(err)
}

func (a *bundleAPI) BatchSetFederatedBundle(_ context.Context, q *api.BatchSetFederatedBundleRequest) (*api.BatchSetFederatedBundleResponse, error) {
	results, err := a.put(setBundle, q.Bundle, nil, q.OutputMask)
	return &api.BatchSetFederatedBundleResponse{Results: results}, err
}

func (a *bundleAPI) BatchCreateFederatedBundle(_ context.Context, q *api.BatchCreateFederatedBundleRequest) (*api.BatchCreateFederatedBundleResponse, error) {
	results, err := a.put(createBundle, q.Bundle, nil, q.OutputMask)
	answer := &api.BatchCreateFederatedBundleResponse{}
	for _, r := range results {
		answer.Results = append(answer.Results, &api.BatchCreateFederatedBundleResponse_Result{Status: r.Status, Bundle: r.Bundle})
	}
	return answer, err
}

func (a *bundleAPI) BatchUpdateFederatedBundle(_ context.Context, q *api.BatchUpdateFederatedBundleRequest) (*api.BatchUpdateFederatedBundleResponse, error) {
	results, err := a.put(updateBundle, q.Bundle, q.InputMask, q.OutputMask)
	answer := &api.BatchUpdateFederatedBundleResponse{}
	for _, r := range results {
		answer.Results = append(answer.Results, &api.BatchUpdateFederatedBundleResponse_Result{Status: r.Status, Bundle: r.Bundle})
	}
	return answer, err
}

func (a *bundleAPI) BatchDeleteFederatedBundle(_ context.Context, q *api.BatchDeleteFederatedBundleRequest) (*api.BatchDeleteFederatedBundleResponse, error) {
	answer := &api.BatchDeleteFederatedBundleResponse{}
	err := a.authority.Update(func(s *ca.State) error {
		for _, given := range q.TrustDomains {
			name, err := a.foreign(given)
			if err == nil {
				err = deleteBundle(s, name, q.Mode)
			}
			answer.Results = append(answer.Results, &api.BatchDeleteFederatedBundleResponse_Result{Status: result(err), TrustDomain: given})
			if err == nil {
				a.log.Info("federated bundle deleted", "trust_domain", name)
			}
		}
		return nil
	})
	return answer, asStatus(err)
}

// deleteBundle treats the entries that federate with the domain as mode says.
func deleteBundle(s *ca.State, name string, mode api.BatchDeleteFederatedBundleRequest_Mode) error {
	if s.Bundles[name] == nil {
		return status.Errorf(codes.NotFound, "bundle of %q not found", name)
	}
	for _, e := range s.Ordered() {
		if !federates(e, name) {
			continue
		}
		switch mode {
		case api.BatchDeleteFederatedBundleRequest_DELETE:
			delete(s.Entries, e.Id)
		case api.BatchDeleteFederatedBundleRequest_DISSOCIATE:
			s.Entries[e.Id] = dissociate(e, name)
		default:
			return status.Errorf(codes.FailedPrecondition, "cannot delete bundle of %q: entry %q federates with it", name, e.Id)
		}
	}
	delete(s.Bundles, name)
	return nil
}
