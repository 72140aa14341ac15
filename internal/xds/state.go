package xds

import (
	"hash/fnv"
	"slices"
	"strconv"
)

// subscribeState takes the whole list of names. A request that answers an older response is void: the client will
// repeat it with the newer nonce (xDS, "Knowing When a Requested Resource Does Not Exist", "ACK/NACK").
func (s *ServerSession[S]) subscribeState(row step, sub *subscription, r Request, first bool) error {
	if r.Nonce != "" && sub.nonce != "" && r.Nonce != sub.nonce {
		return nil
	}
	if err := checkNames(r.Names); err != nil {
		return err
	}
	if len(r.Names) > MaxNames {
		return ErrTooManyNames
	}
	names := slices.Compact(slices.Sorted(slices.Values(r.Names)))
	star, all := slices.BinarySearch(names, Wildcard)
	if all {
		names = slices.Delete(names, star, star+1)
	}
	legacy := len(r.Names) == 0 && row.Wildcard && (first || sub.wildcard && len(sub.named) == 0)
	if all || legacy {
		if !sub.wildcard {
			s.widen(row.Type(), sub, nil)
			sub.look(Wildcard, true) // an empty answer is an answer
		}
	} else {
		sub.narrow()
	}
	s.rename(sub, names)
	return nil
}

// rename makes the names of a subscription exactly these.
func (s *ServerSession[S]) rename(sub *subscription, names []string) {
	for _, old := range sub.explicit() {
		if _, keep := slices.BinarySearch(names, old); !keep {
			sub.drop(old)
		}
	}
	for _, name := range names {
		if !sub.asked(name) {
			sub.add(name, Version{})
		}
	}
}

// whole turns a delta into state of the world: types that are sent whole get all that exists; of the others
// absence cannot be said, so what is gone is only forgotten.
func (s *ServerSession[S]) whole(row step, sub *subscription, response *Response, changed bool) {
	sub.takeRemovals()
	if row.Whole && changed {
		response.Resources = s.everything(row.Type(), sub)
	}
	if row.Whole && changed || len(response.Resources) > 0 {
		response.Version = digest(response.Resources)
	}
}

func (s *ServerSession[S]) everything(t Type, sub *subscription) []Resource {
	var all []Resource
	for _, e := range sub.sent.entries {
		if resource, ok := s.catalog.Get(s.state, t, e.name.Value()); ok && e.version != (Version{}) {
			all = append(all, resource)
		}
	}
	return all
}

// digest is the version of a set of resources, equal on every replica.
func digest(resources []Resource) string {
	hash := fnv.New64a()
	for _, r := range resources {
		hash.Write([]byte(r.Name))
		hash.Write(r.Version[:])
	}
	return strconv.FormatUint(hash.Sum64(), 16)
}
