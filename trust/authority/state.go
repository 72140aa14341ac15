package authority

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

// state is one version of everything the authority knows. Immutable once published. The messages in it are the
// SPIRE API's own, checked before they enter: this package is that API's edge.
type state struct {
	sequence      uint64  // of the own bundle
	roots         []*root // of the own bundle, oldest first
	entries       map[string]*types.Entry
	bundles       map[string]*types.Bundle // foreign ones by trust domain
	relationships map[string]*types.FederationRelationship
}

func newState() *state {
	return &state{
		entries:       make(map[string]*types.Entry),
		bundles:       make(map[string]*types.Bundle),
		relationships: make(map[string]*types.FederationRelationship),
	}
}

func (s *state) clone() *state {
	return &state{
		sequence: s.sequence, roots: slices.Clone(s.roots), entries: maps.Clone(s.entries),
		bundles: maps.Clone(s.bundles), relationships: maps.Clone(s.relationships),
	}
}

// phase is where a root is in its life. At most one root is prepared and one active.
type phase string

const (
	prepared phase = "prepared" // published, does not sign yet
	active   phase = "active"   // signs
	old      phase = "old"      // signs no longer, still verifies
)

// in returns the newest root in the phase, or nil.
func (s *state) in(p phase) *root {
	for _, r := range slices.Backward(s.roots) {
		if r.phase == p {
			return r
		}
	}
	return nil
}

func (s *state) find(id string) *root {
	for _, r := range s.roots {
		if r.id() == id {
			return r
		}
	}
	return nil
}

// replace puts changed in the place of the root with the same key.
func (s *state) replace(changed *root) {
	for i, r := range s.roots {
		if r.id() == changed.id() {
			s.roots[i] = changed
		}
	}
}

func (s *state) remove(gone func(*root) bool) { s.roots = slices.DeleteFunc(s.roots, gone) }

// prepare publishes a new root in place of one that was prepared and never used.
func (s *state) prepare(r *root) {
	s.remove(func(r *root) bool { return r.phase == prepared })
	s.roots = append(s.roots, r.in(prepared))
}

var errNotPrepared = errors.New("there is no prepared authority: prepare one first")

// activate lets the prepared root sign.
func (s *state) activate() error {
	next, now := s.in(prepared), s.in(active)
	if next == nil {
		return errNotPrepared
	}
	if now != nil {
		s.replace(now.in(old))
	}
	s.replace(next.in(active))
	return nil
}

// sameBundle reports whether both versions publish the same roots.
func (s *state) sameBundle(o *state) bool {
	return slices.EqualFunc(s.roots, o.roots, func(x, y *root) bool {
		return x.certificate.Equal(y.certificate) && x.tainted == y.tainted
	})
}

// ordered returns the entries by ID, which is the order of pages.
func (s *state) ordered() []*types.Entry {
	return slices.SortedFunc(maps.Values(s.entries), func(x, y *types.Entry) int { return cmp.Compare(x.Id, y.Id) })
}

// bundle is the own bundle as the SPIRE API shows it.
func (s *state) bundle(domain string, hint time.Duration) *types.Bundle {
	b := &types.Bundle{TrustDomain: domain, SequenceNumber: s.sequence, RefreshHint: int64(hint / time.Second)}
	for _, r := range s.roots {
		b.X509Authorities = append(b.X509Authorities, &types.X509Certificate{Asn1: r.certificate.Raw, Tainted: r.tainted})
	}
	return b
}

// rootsDER are the certificates of a foreign bundle as the Workload API carries them, one after the other.
func rootsDER(b *types.Bundle) []byte {
	var der []byte
	for _, c := range b.GetX509Authorities() {
		der = append(der, c.Asn1...)
	}
	return der
}
