package spire

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// related lists the server's federation relationships by the foreign domain.
func (c *Client) related(ctx context.Context) (map[string]*types.FederationRelationship, error) {
	all, token := make(map[string]*types.FederationRelationship), ""
	for {
		page, err := c.relationships.ListFederationRelationships(ctx, &trustdomainv1.ListFederationRelationshipsRequest{
			PageSize: pageSize, PageToken: token,
			OutputMask: &types.FederationRelationshipMask{BundleEndpointUrl: true, BundleEndpointProfile: true},
		})
		if err != nil {
			return nil, fmt.Errorf("federation relationships: %w", err)
		}
		for _, r := range page.FederationRelationships {
			all[r.TrustDomain] = r
		}
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// relate tells the server where to fetch newer bundles, for the domains whose endpoint is known. The server holds a
// bundle of each already, without which it could not verify the endpoint.
func (r *reconciliation) relate(ctx context.Context) {
	for _, f := range r.desired.Bundles {
		if r.held[f.TrustDomain] == nil {
			continue
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
	have := r.relations[f.TrustDomain.Name()]
	delivery = "endpoint " + f.Endpoint.URL
	switch {
	case f.Endpoint.URL == "" || f.Endpoint.ID.IsZero():
		if have != nil {
			return "endpoint " + have.BundleEndpointUrl + " (not told by its owner)", nil
		}
		return "mesh: no bundle endpoint is known that this server could reach", nil
	case have == nil:
		return delivery, r.createRelationship(ctx, f)
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
	return relationshipError(err, answer.GetResults())
}

func (r *reconciliation) updateRelationship(ctx context.Context, f ForeignBundle) error {
	answer, err := r.relationships.BatchUpdateFederationRelationship(ctx, &trustdomainv1.BatchUpdateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{f.relationship()},
		InputMask:               &types.FederationRelationshipMask{BundleEndpointUrl: true, BundleEndpointProfile: true},
	})
	return relationshipError(err, answer.GetResults())
}

func (r *reconciliation) unrelate(ctx context.Context, domain spiffeid.TrustDomain) error {
	if r.relations[domain.Name()] == nil {
		return nil
	}
	answer, err := r.relationships.BatchDeleteFederationRelationship(ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{
		TrustDomains: []string{domain.Name()},
	})
	if err = relationshipError(err, answer.GetResults()); status.Code(err) == codes.NotFound {
		return nil // somebody deleted it meanwhile
	}
	return err
}

// relationshipError is the call's error, or those of its items.
func relationshipError[R interface{ GetStatus() *types.Status }](err error, results []R) error {
	for _, result := range results {
		err = errors.Join(err, outcome(result.GetStatus()))
	}
	if err != nil {
		return fmt.Errorf("federation relationship: %w", err)
	}
	return nil
}
