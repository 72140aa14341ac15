package spire

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// relate tells the server where to fetch newer bundles, for the domains whose endpoint is known.
func (r *reconciliation) relate(ctx context.Context) {
	for _, f := range r.desired.Bundles {
		if r.held[f.TrustDomain] == nil {
			continue // https_spiffe needs a bundle to begin with
		}
		delivery, err := r.relateOne(ctx, f)
		if err != nil {
			delivery = "mesh: " + err.Error()
		}
		r.fail(f.TrustDomain, err)
		noted := r.status.Domains[f.TrustDomain]
		noted.Delivery = delivery
		r.status.Domains[f.TrustDomain] = noted
	}
}

func (r *reconciliation) relateOne(ctx context.Context, f ForeignBundle) (delivery string, err error) {
	if f.Endpoint.URL == "" || f.Endpoint.ID.IsZero() {
		return "mesh: no bundle endpoint is known that this server could reach", nil
	}
	delivery = "endpoint " + f.Endpoint.URL
	have, err := r.relationships.GetFederationRelationship(ctx, &trustdomainv1.GetFederationRelationshipRequest{TrustDomain: f.TrustDomain.Name()})
	switch {
	case status.Code(err) == codes.NotFound:
		return delivery, r.createRelationship(ctx, f)
	case err != nil:
		return delivery, fmt.Errorf("federation relationship: %w", err)
	case f.Endpoint.is(have):
		return delivery, nil
	case !r.managed[f.TrustDomain]:
		return "endpoint " + have.BundleEndpointUrl + " (set by somebody else)", nil
	}
	return delivery, r.updateRelationship(ctx, f)
}

func (e Endpoint) is(have *types.FederationRelationship) bool {
	return have.BundleEndpointUrl == e.URL && have.GetHttpsSpiffe().GetEndpointSpiffeId() == e.ID.String()
}

func (f ForeignBundle) relationship() *types.FederationRelationship {
	return &types.FederationRelationship{
		TrustDomain: f.TrustDomain.Name(), BundleEndpointUrl: f.Endpoint.URL,
		BundleEndpointProfile: &types.FederationRelationship_HttpsSpiffe{
			HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: f.Endpoint.ID.String()},
		},
	}
}

func (r *reconciliation) createRelationship(ctx context.Context, f ForeignBundle) error {
	answer, err := r.relationships.BatchCreateFederationRelationship(ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{f.relationship()},
	})
	if err != nil {
		return fmt.Errorf("federation relationship: %w", err)
	}
	for _, result := range answer.Results {
		if err := outcome(result.Status); err != nil {
			return fmt.Errorf("federation relationship: %w", err)
		}
	}
	return nil
}

func (r *reconciliation) updateRelationship(ctx context.Context, f ForeignBundle) error {
	answer, err := r.relationships.BatchUpdateFederationRelationship(ctx, &trustdomainv1.BatchUpdateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{f.relationship()},
		InputMask:               &types.FederationRelationshipMask{BundleEndpointUrl: true, BundleEndpointProfile: true},
	})
	if err != nil {
		return fmt.Errorf("federation relationship: %w", err)
	}
	for _, result := range answer.Results {
		if err := outcome(result.Status); err != nil {
			return fmt.Errorf("federation relationship: %w", err)
		}
	}
	return nil
}

func (r *reconciliation) unrelate(ctx context.Context, domain spiffeid.TrustDomain) error {
	answer, err := r.relationships.BatchDeleteFederationRelationship(ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{
		TrustDomains: []string{domain.Name()},
	})
	if err != nil {
		return fmt.Errorf("federation relationship: %w", err)
	}
	for _, result := range answer.Results {
		if err := outcome(result.Status); err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("federation relationship: %w", err)
		}
	}
	return nil
}
