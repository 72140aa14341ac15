package global

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/global/registry"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/feed"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// admit says why a verified client may not use the mesh listener any more, or nil.
func (p *parts) admit(client peer.Identity) error {
	if client.ID.TrustDomain() != p.config.PKI.TrustDomain() {
		if owner(p.latest(), client.ID.TrustDomain()) == nil {
			return fmt.Errorf("trust domain %q is no registered cluster's", client.ID.TrustDomain().Name())
		}
		return nil
	}
	role, _, err := mesh.ParsePlaneIdentity(client.ID)
	if err != nil {
		return err
	}
	if role != mesh.RoleAgent || !p.ready() {
		return nil // before the state is complete nothing is known of clusters; the handlers wait for it
	}
	_, err = registry.Agent(p.latest(), p.config.PKI, client)
	return err
}

func (p *parts) ready() bool {
	select {
	case <-p.store.Ready():
		return true
	default:
		return false
	}
}

// owner is the registered cluster of a trust domain, or nil.
func owner(s *mesh.Snapshot, domain spiffeid.TrustDomain) *mesh.Cluster {
	for c := range s.Clusters() {
		if c.TrustDomain == domain {
			return c
		}
	}
	return nil
}

// authorize chooses what a discovery stream may see. Cluster, role and namespace come from the certificate; the
// node only chooses among what these allow.
func (p *parts) authorize(_ context.Context, client adsserver.Peer, node *corev3.Node) (xds.Catalog[*mesh.Snapshot], error) {
	if client.ID.IsZero() {
		return nil, trust.ErrUnverified
	}
	if client.ID.TrustDomain() == p.config.PKI.TrustDomain() {
		name, err := peer.Identity{ID: client.ID}.Plane(p.config.PKI.TrustDomain(), mesh.RoleAgent)
		if err != nil {
			return nil, err
		}
		return feed.Catalog(mesh.ClusterID(name)), nil
	}
	cluster := owner(p.latest(), client.ID.TrustDomain())
	if cluster == nil {
		return nil, fmt.Errorf("trust domain %q is no registered cluster's", client.ID.TrustDomain().Name())
	}
	view, err := translate.ViewFor(cluster, client.ID, node)
	if err != nil {
		return nil, err
	}
	return catalog.Of(view), nil
}

// verifier is the trust.Source of the mesh listener: the replica's own SVID, and the bundles of the control plane
// and of every registered cluster as the mesh agreed on them.
type verifier struct {
	watch.Value[*trust.Material]
	own   *pki.Source
	store *mesh.Store
	log   *slog.Logger
}

func newVerifier(own *pki.Source, store *mesh.Store, log *slog.Logger) *verifier {
	v := &verifier{own: own, store: store, log: log}
	v.Set(own.Latest())
	return v
}

// Run follows the store and the SVID until ctx is done.
func (v *verifier) Run(ctx context.Context) error {
	var used []*mesh.Federation
	var last *trust.Material
	for {
		material, renewed := v.own.Get()
		snapshot, changed := v.store.Latest()
		if now := federations(snapshot, material.ID.TrustDomain()); material != last || !slices.Equal(now, used) {
			v.Set(v.merge(material, now))
			last, used = material, now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-renewed:
		case <-changed:
		}
	}
}

// federations are the published bundles of registered clusters' own trust domains. The control plane's is not
// theirs to publish.
func federations(s *mesh.Snapshot, plane spiffeid.TrustDomain) (out []*mesh.Federation) {
	for f := range s.Federations() {
		c := s.Cluster(f.Cluster)
		if c != nil && c.TrustDomain == f.TrustDomain && f.TrustDomain != plane {
			out = append(out, f)
		}
	}
	return out
}

func (v *verifier) merge(own *trust.Material, published []*mesh.Federation) *trust.Material {
	merged := *own
	merged.Bundles = make(map[spiffeid.TrustDomain][]*x509.Certificate, len(published)+1)
	for _, f := range published {
		bundle, err := trust.ParseBundle(f.TrustDomain, f.Bundle)
		if err != nil {
			v.log.Error("published bundle is not usable: the domain's proxies are refused here", "cluster", string(f.Cluster), "err", err)
			continue
		}
		merged.Bundles[f.TrustDomain] = bundle.X509
	}
	for domain, roots := range own.Bundles {
		merged.Bundles[domain] = roots
	}
	return &merged
}
