package workloadapi

import (
	"strconv"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// selectors are what holds for the process, in the words of SPIRE's unix workload attestor.
func (p process) selectors() map[string]bool {
	held := map[string]bool{
		"unix:uid:" + strconv.Itoa(p.uid): true,
		"unix:gid:" + strconv.Itoa(p.gid): true,
	}
	if p.path != "" {
		held["unix:path:"+p.path] = true
	}
	return held
}

// entitled returns the entries whose selectors all hold, in the order of their IDs: the first is the default
// identity, so the order must not change by itself.
func entitled(s *ca.State, held map[string]bool) []*types.Entry {
	var matching []*types.Entry
	for _, e := range s.Ordered() {
		if matches(e, held) {
			matching = append(matching, e)
		}
	}
	return matching
}

func matches(e *types.Entry, held map[string]bool) bool {
	for _, selector := range e.Selectors {
		if !held[selector.Type+":"+selector.Value] {
			return false
		}
	}
	return len(e.Selectors) > 0
}
