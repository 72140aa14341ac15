package spire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust"
)

// ForeignBundle is a trust domain that the cluster shall trust.
type ForeignBundle struct {
	TrustDomain spiffeid.TrustDomain
	JWKS        []byte // with its sequence number; has passed package continuity
	// Endpoint lets the server fetch newer bundles by itself; zero = none is known, the mesh carries them.
	Endpoint Endpoint
}

// Endpoint is a SPIFFE bundle endpoint of the https_spiffe profile. Its parts are explicit, never inferred
// (SPIFFE Federation, section 5).
type Endpoint struct {
	URL string // https://host/path
	ID  spiffeid.ID
}

// Desired is what one reconciliation is to reach.
type Desired struct {
	Bundles []ForeignBundle
	// Managed are the domains that earlier reconciliations set: the Status.Managed that the caller kept. Only
	// these are ever deleted.
	Managed []spiffeid.TrustDomain
	// Complete says that Bundles is all that is desired, so that a managed domain that is missing is to go.
	// Zero = not known, and nothing is deleted.
	Complete bool
	// Keep are domains that are not to go although nothing of them is desired: their newest bundle was refused, so what
	// the server holds of them stays in force.
	Keep []spiffeid.TrustDomain
	// Paths limits which entries are made to federate: those whose SPIFFE ID's path is one of these or below it, such as
	// /ns/shop. Empty = every workload's.
	Paths []string
	// Remember keeps the new Managed before anything is set, so that a crash leaves no orphan. An error stops
	// the reconciliation. nil = the caller keeps Status.Managed afterwards.
	Remember func([]spiffeid.TrustDomain) error
}

// Status is what the server holds after a reconciliation.
type Status struct {
	Own     DomainStatus
	Domains map[spiffeid.TrustDomain]DomainStatus // desired ones and all others that the server holds
	Managed []spiffeid.TrustDomain                // in order of their names
	Entries int                                   // workload entries that are to federate
	Updated int                                   // of these, changed now
	// Contested are the SPIFFE IDs of entries from which somebody else takes the domains out each time.
	Contested []string
}

// DomainStatus is one trust domain as the server holds it.
type DomainStatus struct {
	Sequence    uint64
	Authorities int       // X.509 roots; 0 = the server holds no bundle
	Expiry      time.Time // of the last root; zero without roots
	Managed     bool      // set by this client
	Problem     string    // why the desired bundle was not taken; "" = none
	Delivery    string    // how newer bundles come: "endpoint URL", or "mesh" and why
}

// Sequences are the bundle versions that workloads can see, by name of the trust domain.
func (s Status) Sequences() map[string]uint64 {
	all := make(map[string]uint64, len(s.Domains))
	for domain, d := range s.Domains {
		if d.Authorities > 0 {
			all[domain.Name()] = d.Sequence
		}
	}
	return all
}

// reconciliation is the state of one Reconcile.
type reconciliation struct {
	*Client
	desired Desired
	own     spiffeid.TrustDomain
	held    map[spiffeid.TrustDomain]*trust.Bundle
	managed map[spiffeid.TrustDomain]bool
	// relations are the federation relationships at the beginning, by domain.
	relations map[string]*types.FederationRelationship
	status    Status
	failed    []error
}

// Reconcile makes the server federate as desired. After an error some of it may be done; calling again is safe. Beside
// the error the Status is the zero one if the server could not be read at all, else what it holds now.
// A desired bundle that must not be taken is no error: its DomainStatus.Problem says why, and what the server
// held stays in force.
func (c *Client) Reconcile(ctx context.Context, desired Desired) (Status, error) {
	own, err := c.OwnBundle(ctx)
	if err != nil {
		return Status{}, err
	}
	held, err := c.held(ctx)
	if err != nil {
		return Status{}, c.explain(err)
	}
	relations, err := c.related(ctx)
	if err != nil {
		return Status{}, c.explain(err)
	}
	r := &reconciliation{
		Client: c, desired: desired, own: own.TrustDomain, held: held, managed: make(map[spiffeid.TrustDomain]bool), relations: relations,
	}
	r.status.Own, r.status.Domains = describe(own), make(map[spiffeid.TrustDomain]DomainStatus)
	for _, domain := range desired.Managed {
		r.managed[domain] = true
	}
	err = r.run(ctx)
	r.finish()
	if err != nil {
		return r.status, c.explain(err)
	}
	return r.status, nil
}

func (r *reconciliation) run(ctx context.Context) error {
	wanted := r.judge()
	if err := r.remember(wanted); err != nil {
		return err
	}
	for _, b := range wanted {
		r.fail(b.TrustDomain, r.set(ctx, b))
	}
	r.remove(ctx)
	r.relate(ctx)
	if err := r.federate(ctx); err != nil {
		r.failed = append(r.failed, err)
	}
	return errors.Join(r.failed...)
}

// judge returns the bundles to set, and writes down why others are not.
func (r *reconciliation) judge() []*trust.Bundle {
	var wanted []*trust.Bundle
	seen := make(map[spiffeid.TrustDomain]bool)
	for _, f := range r.desired.Bundles {
		b, err := r.judgeOne(f)
		if seen[f.TrustDomain] {
			err = errors.New("is desired twice: the first is taken")
		}
		seen[f.TrustDomain] = true
		switch {
		case err != nil:
			r.status.Domains[f.TrustDomain] = DomainStatus{Problem: err.Error()}
		case b != nil:
			wanted = append(wanted, b)
		}
	}
	return wanted
}

// judgeOne returns nil if the server holds the bundle already.
func (r *reconciliation) judgeOne(f ForeignBundle) (*trust.Bundle, error) {
	if f.TrustDomain == r.own {
		return nil, errors.New("is the server's own trust domain")
	}
	b, err := trust.ParseBundle(f.TrustDomain, f.JWKS)
	if err != nil {
		return nil, err
	}
	held := r.held[f.TrustDomain]
	switch {
	case held == nil:
		return b, nil
	case !r.managed[f.TrustDomain] && len(held.X509) > 0 && !shareRoot(held, b):
		return nil, errors.New("somebody else set this domain's bundle and it shares no root with the mesh's: delete one or the other")
	case held.Sequence > b.Sequence && r.relations[f.TrustDomain.Name()] != nil:
		return nil, nil // the server fetched it from the endpoint before the mesh brought it
	case held.Sequence > b.Sequence:
		return nil, fmt.Errorf("has sequence %d, the server holds %d already", b.Sequence, held.Sequence)
	case held.Sequence == b.Sequence && held.SameKeys(b):
		return nil, nil
	case held.Sequence == b.Sequence:
		return nil, fmt.Errorf("has sequence %d with other keys than the server holds under it", b.Sequence)
	}
	return b, nil
}

func shareRoot(x, y *trust.Bundle) bool {
	for _, root := range x.X509 {
		if slices.ContainsFunc(y.X509, root.Equal) {
			return true
		}
	}
	return false
}

// remember takes charge of the domains that nobody had set before.
func (r *reconciliation) remember(wanted []*trust.Bundle) error {
	taken := false
	for _, b := range wanted {
		if r.held[b.TrustDomain] == nil && !r.managed[b.TrustDomain] {
			r.managed[b.TrustDomain], taken = true, true
		}
	}
	if !taken || r.desired.Remember == nil {
		return nil
	}
	if err := r.desired.Remember(r.managedNames()); err != nil {
		return fmt.Errorf("remember managed domains: %w", err)
	}
	return nil
}

func (r *reconciliation) managedNames() []spiffeid.TrustDomain {
	return slices.SortedFunc(maps.Keys(r.managed), func(x, y spiffeid.TrustDomain) int { return cmp.Compare(x.Name(), y.Name()) })
}

func (r *reconciliation) fail(domain spiffeid.TrustDomain, err error) {
	if err != nil {
		r.failed = append(r.failed, fmt.Errorf("trust domain %q: %w", domain.Name(), err))
	}
}

func (r *reconciliation) set(ctx context.Context, b *trust.Bundle) error {
	w, err := wireOf(b)
	if err != nil {
		return err
	}
	answer, err := r.bundles.BatchSetFederatedBundle(ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{w}})
	if err != nil {
		return fmt.Errorf("set bundle: %w", err)
	}
	for _, result := range answer.Results {
		if err := outcome(result.Status); err != nil {
			return fmt.Errorf("set bundle: %w", err)
		}
	}
	r.held[b.TrustDomain] = b
	return nil
}

// remove deletes what is managed and no longer desired, its relationship first: or the server would fetch the
// bundle again.
func (r *reconciliation) remove(ctx context.Context) {
	if !r.desired.Complete {
		return
	}
	wanted := make(map[spiffeid.TrustDomain]bool)
	for _, f := range r.desired.Bundles {
		wanted[f.TrustDomain] = true
	}
	for _, domain := range r.desired.Keep {
		wanted[domain] = true
	}
	for _, domain := range r.managedNames() {
		if wanted[domain] {
			continue
		}
		err := errors.Join(r.unrelate(ctx, domain), r.delete(ctx, domain))
		r.fail(domain, err)
		if err == nil {
			delete(r.managed, domain)
			delete(r.held, domain)
		}
	}
}

func (r *reconciliation) delete(ctx context.Context, domain spiffeid.TrustDomain) error {
	answer, err := r.bundles.BatchDeleteFederatedBundle(ctx, &bundlev1.BatchDeleteFederatedBundleRequest{
		TrustDomains: []string{domain.Name()}, Mode: bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE,
	})
	if err != nil {
		return fmt.Errorf("delete bundle: %w", err)
	}
	for _, result := range answer.Results {
		if err := outcome(result.Status); err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("delete bundle: %w", err)
		}
	}
	return nil
}

// finish describes what the server holds now.
func (r *reconciliation) finish() {
	for domain, b := range r.held {
		d, noted := describe(b), r.status.Domains[domain]
		d.Problem, d.Delivery, d.Managed = noted.Problem, noted.Delivery, r.managed[domain]
		r.status.Domains[domain] = d
	}
	r.status.Managed = r.managedNames()
}

func describe(b *trust.Bundle) DomainStatus {
	return DomainStatus{Sequence: b.Sequence, Authorities: len(b.X509), Expiry: b.Expiry()}
}
