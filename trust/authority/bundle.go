package authority

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bundleAPI is SPIRE's bundle/v1: the own bundle to read, foreign ones to set.
type bundleAPI struct {
	api.UnimplementedBundleServer
	keeper *keeper
}

func (a *bundleAPI) GetBundle(_ context.Context, q *api.GetBundleRequest) (*types.Bundle, error) {
	s := a.keeper.latest.Latest()
	return showBundle(s.bundle(a.keeper.domain.Name(), a.keeper.hint), q.OutputMask), nil
}

func showBundle(b *types.Bundle, mask *types.BundleMask) *types.Bundle {
	shown := &types.Bundle{TrustDomain: b.TrustDomain}
	copyMasked(shown, b, mask)
	return shown
}

func (a *bundleAPI) CountBundles(context.Context, *api.CountBundlesRequest) (*api.CountBundlesResponse, error) {
	return &api.CountBundlesResponse{Count: int32(1 + len(a.keeper.latest.Latest().bundles))}, nil
}

func (a *bundleAPI) ListFederatedBundles(_ context.Context, q *api.ListFederatedBundlesRequest) (*api.ListFederatedBundlesResponse, error) {
	s := a.keeper.latest.Latest()
	page, next := pageOf(names(s.bundles), q.PageToken, q.PageSize)
	answer := &api.ListFederatedBundlesResponse{NextPageToken: next}
	for _, name := range page {
		answer.Bundles = append(answer.Bundles, showBundle(s.bundles[name], q.OutputMask))
	}
	return answer, nil
}

func (a *bundleAPI) GetFederatedBundle(_ context.Context, q *api.GetFederatedBundleRequest) (*types.Bundle, error) {
	name, err := a.keeper.foreign(q.TrustDomain)
	if err != nil {
		return nil, err
	}
	b := a.keeper.latest.Latest().bundles[name]
	if b == nil {
		return nil, status.Errorf(codes.NotFound, "bundle of %q not found", name)
	}
	return showBundle(b, q.OutputMask), nil
}

// foreign parses the name of a trust domain that is not the own one.
func (k *keeper) foreign(name string) (string, error) {
	domain, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return "", status.Errorf(codes.InvalidArgument, "trust domain %q is not valid: %v", name, err)
	}
	if domain == k.domain {
		return "", status.Errorf(codes.InvalidArgument, "%q is this server's own trust domain", name)
	}
	return domain.Name(), nil
}

// checkBundle returns the bundle with its name in normal form.
func (k *keeper) checkBundle(b *types.Bundle) (*types.Bundle, error) {
	name, err := k.foreign(b.GetTrustDomain())
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
func createBundle(s *state, b *types.Bundle, _ *types.BundleMask) error {
	if s.bundles[b.TrustDomain] != nil {
		return status.Errorf(codes.AlreadyExists, "bundle of %q exists already", b.TrustDomain)
	}
	s.bundles[b.TrustDomain] = b
	return nil
}

func updateBundle(s *state, b *types.Bundle, mask *types.BundleMask) error {
	now := s.bundles[b.TrustDomain]
	if now == nil {
		return status.Errorf(codes.NotFound, "bundle of %q not found", b.TrustDomain)
	}
	changed := showBundle(now, nil)
	copyMasked(changed, b, mask)
	s.bundles[b.TrustDomain] = changed
	return nil
}

func setBundle(s *state, b *types.Bundle, _ *types.BundleMask) error {
	s.bundles[b.TrustDomain] = b
	return nil
}

// put does one action with each bundle; what cannot be done is told in that bundle's result.
func (a *bundleAPI) put(action func(*state, *types.Bundle, *types.BundleMask) error, bundles []*types.Bundle, input, output *types.BundleMask) ([]*api.BatchSetFederatedBundleResponse_Result, error) {
	results := make([]*api.BatchSetFederatedBundleResponse_Result, len(bundles))
	err := a.keeper.update(func(s *state) error {
		for i, b := range bundles {
			checked, err := a.keeper.checkBundle(b)
			if err == nil {
				err = action(s, checked, input)
			}
			results[i] = &api.BatchSetFederatedBundleResponse_Result{Status: result(err)}
			if err == nil {
				results[i].Bundle = showBundle(s.bundles[checked.TrustDomain], output)
				a.keeper.log.Info("federated bundle set", "trust_domain", checked.TrustDomain, "sequence", checked.SequenceNumber)
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
	err := a.keeper.update(func(s *state) error {
		for _, given := range q.TrustDomains {
			name, err := a.keeper.foreign(given)
			if err == nil {
				err = s.deleteBundle(name, q.Mode)
			}
			answer.Results = append(answer.Results, &api.BatchDeleteFederatedBundleResponse_Result{Status: result(err), TrustDomain: given})
			if err == nil {
				a.keeper.log.Info("federated bundle deleted", "trust_domain", name)
			}
		}
		return nil
	})
	return answer, asStatus(err)
}

// deleteBundle treats the entries that federate with the domain as mode says.
func (s *state) deleteBundle(name string, mode api.BatchDeleteFederatedBundleRequest_Mode) error {
	if s.bundles[name] == nil {
		return status.Errorf(codes.NotFound, "bundle of %q not found", name)
	}
	for _, e := range s.ordered() {
		if !federates(e, name) {
			continue
		}
		switch mode {
		case api.BatchDeleteFederatedBundleRequest_DELETE:
			delete(s.entries, e.Id)
		case api.BatchDeleteFederatedBundleRequest_DISSOCIATE:
			s.entries[e.Id] = dissociate(e, name)
		default:
			return status.Errorf(codes.FailedPrecondition, "cannot delete bundle of %q: entry %q federates with it", name, e.Id)
		}
	}
	delete(s.bundles, name)
	return nil
}
