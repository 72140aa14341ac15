package ca

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

// State is one version of everything the authority knows. Immutable once published, the messages too: who changes one
// puts another in its place.
type State struct {
	sequence uint64  // of the own bundle
	roots    []*Root // of the own bundle, oldest first

	// Entries by ID, foreign bundles and federation relationships by the name of their trust domain.
	Entries       map[string]*types.Entry
	Bundles       map[string]*types.Bundle
	Relationships map[string]*types.FederationRelationship
}

func newState() *State {
	return &State{
		Entries:       make(map[string]*types.Entry),
		Bundles:       make(map[string]*types.Bundle),
		Relationships: make(map[string]*types.FederationRelationship),
	}
}

func (s *State) clone() *State {
	return &State{
		sequence: s.sequence, roots: slices.Clone(s.roots), Entries: maps.Clone(s.Entries),
		Bundles: maps.Clone(s.Bundles), Relationships: maps.Clone(s.Relationships),
	}
}

// Phase is where a root is in its life. At most one root is prepared and one active.
type Phase string

// The phases.
const (
	Prepared Phase = "prepared" // published, does not sign yet
	Active   Phase = "active"   // signs
	Old      Phase = "old"      // signs no longer, still verifies
)

// In returns the newest root in the phase, or nil.
func (s *State) In(p Phase) *Root {
	for _, r := range slices.Backward(s.roots) {
		if r.phase == p {
			return r
		}
	}
	return nil
}

// Find returns the root with this ID, or nil.
func (s *State) Find(id string) *Root {
	for _, r := range s.roots {
		if r.ID() == id {
			return r
		}
	}
	return nil
}

// replace puts changed in the place of the root with the same key.
func (s *State) replace(changed *Root) {
	for i, r := range s.roots {
		if r.ID() == changed.ID() {
			s.roots[i] = changed
		}
	}
}

func (s *State) remove(gone func(*Root) bool) { s.roots = slices.DeleteFunc(s.roots, gone) }

// Prepare publishes a new root in place of one that was prepared and never used.
func (s *State) Prepare(r *Root) {
	s.remove(func(r *Root) bool { return r.phase == Prepared })
	s.roots = append(s.roots, r.in(Prepared))
}

var errNotPrepared = errors.New("there is no prepared authority: prepare one first")

// Activate lets the prepared root sign, of which there must be one.
func (s *State) Activate() error {
	next, now := s.In(Prepared), s.In(Active)
	if next == nil {
		return errNotPrepared
	}
	if now != nil {
		s.replace(now.in(Old))
	}
	s.replace(next.in(Active))
	return nil
}

// Taint has the SVIDs that r signed renewed at once. r still verifies.
func (s *State) Taint(r *Root) {
	changed := *r
	changed.tainted = true
	s.replace(&changed)
}

// Revoke takes r out of the bundle: what it signed verifies no longer.
func (s *State) Revoke(r *Root) { s.remove(func(x *Root) bool { return x.ID() == r.ID() }) }

// sameBundle reports whether both versions publish the same roots.
func (s *State) sameBundle(o *State) bool {
	return slices.EqualFunc(s.roots, o.roots, func(x, y *Root) bool {
		return x.certificate.Equal(y.certificate) && x.tainted == y.tainted
	})
}

// Ordered returns the entries by ID.
func (s *State) Ordered() []*types.Entry {
	return slices.SortedFunc(maps.Values(s.Entries), func(x, y *types.Entry) int { return cmp.Compare(x.Id, y.Id) })
}

// RootsDER are the own roots as the Workload API carries them, one after the other.
func (s *State) RootsDER() []byte {
	var der []byte
	for _, r := range s.roots {
		der = append(der, r.certificate.Raw...)
	}
	return der
}
