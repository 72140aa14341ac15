package serverapi

import (
	"slices"

	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/protobuf/proto"
)

// passes reports whether the entry passes every part of the filter that is set.
func passes(e *types.Entry, f *api.ListEntriesRequest_Filter) bool {
	switch {
	case f == nil:
		return true
	case f.BySpiffeId != nil && !proto.Equal(f.BySpiffeId, e.SpiffeId),
		f.ByParentId != nil && !proto.Equal(f.ByParentId, e.ParentId),
		f.ByHint != nil && f.ByHint.Value != e.Hint,
		f.ByDownstream != nil && f.ByDownstream.Value != e.Downstream:
		return false
	}
	if m := f.BySelectors; m != nil && !matchSets(int32(m.Match), selectorsOf(e.Selectors), selectorsOf(m.Selectors)) {
		return false
	}
	m := f.ByFederatesWith
	return m == nil || matchSets(int32(m.Match), e.FederatesWith, m.TrustDomains)
}

func selectorsOf(selectors []*types.Selector) []string {
	var all []string
	for _, s := range selectors {
		all = append(all, s.GetType()+":"+s.GetValue())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// matchSets compares what an entry has with what was asked for; how is the MatchBehavior that selectors.proto
// and federateswith.proto define alike.
func matchSets(how int32, have, asked []string) bool {
	within := func(xs, ys []string) bool {
		return !slices.ContainsFunc(xs, func(x string) bool { return !slices.Contains(ys, x) })
	}
	switch types.SelectorMatch_MatchBehavior(how) {
	case types.SelectorMatch_MATCH_EXACT:
		return within(have, asked) && within(asked, have)
	case types.SelectorMatch_MATCH_SUBSET:
		return len(have) > 0 && within(have, asked)
	case types.SelectorMatch_MATCH_SUPERSET:
		return within(asked, have)
	case types.SelectorMatch_MATCH_ANY:
		return slices.ContainsFunc(have, func(x string) bool { return slices.Contains(asked, x) })
	}
	return false
}
