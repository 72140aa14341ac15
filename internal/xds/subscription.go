package xds

import (
	"maps"
	"slices"
	"strings"
	"unique"
)

// subscription is one type on one stream.
type subscription struct {
	wildcard bool
	// named are the names that were asked for beside the wildcard; nil without one.
	named map[string]bool
	// sent has an entry for every name that the client asked for or was sent.
	sent versions
	// pending are the names to look at in this round; removals those that were found to be gone.
	pending  []check
	removals []string
	// empty: there is nothing to send, and the client is to be told so.
	empty bool
	// backlog counts the names that requests added to pending since it was last empty.
	backlog int
	// nonce is that of the last response; it is in flight until it is answered.
	nonce    string
	inFlight bool
	answered bool
	// detail is the reason of the last answer, if that was a rejection.
	rejected bool
	detail   string
}

// check asks to compare a name with what the client has.
type check struct {
	name string
	// always: answer even if the client has it already.
	always bool
}

// reserve makes room for n names.
func (s *subscription) reserve(n int) {
	s.pending = slices.Grow(s.pending, n)
	if !s.wildcard {
		s.sent.grow(n)
	}
}

func (s *subscription) look(name string, always bool) {
	s.pending = append(s.pending, check{name, always})
}

// subscribed says whether the client wants to hear of the name.
func (s *subscription) subscribed(name string) bool {
	if s.wildcard {
		return true
	}
	_, ok := s.sent.get(name)
	return ok
}

func (s *subscription) names() int {
	if s.wildcard {
		return len(s.named)
	}
	return len(s.sent.entries)
}

// add subscribes a name. have is what the client says it has of it; zero: nothing.
func (s *subscription) add(name string, have Version) {
	s.backlog++
	if s.wildcard {
		s.named[unique.Make(name).Value()] = true
	}
	e := s.sent.find(name)
	if e == nil {
		e = s.sent.set(name, have)
	} else if have != (Version{}) {
		e.version = have
	}
	s.look(e.name.Value(), have == (Version{})) // the shared text, so that the request's need not be kept
}

// drop unsubscribes a name. One that the wildcard still covers is sent again, or said to be removed: the client
// cannot know which (xDS, "Unsubscribing From Resources").
func (s *subscription) drop(name string) {
	if !s.wildcard {
		s.sent.delete(name)
		return
	}
	if s.named[name] {
		s.backlog++
		delete(s.named, name)
		s.look(name, true)
	}
}

// widen makes the subscription a wildcard.
func (s *subscription) widen() {
	if s.wildcard {
		return
	}
	s.wildcard, s.named = true, make(map[string]bool)
	for _, e := range s.sent.entries {
		s.named[e.name.Value()] = true
	}
}

// narrow ends the wildcard and keeps what was asked for by name.
func (s *subscription) narrow() {
	if !s.wildcard {
		return
	}
	s.sent.entries = slices.DeleteFunc(s.sent.entries, func(e entry) bool { return !s.named[e.name.Value()] })
	s.wildcard, s.named = false, nil
}

// tidy sorts pending and merges duplicates.
func (s *subscription) tidy() {
	if len(s.pending) < 2 {
		return
	}
	slices.SortFunc(s.pending, func(a, b check) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return compareTrueFirst(a.always, b.always)
	})
	s.pending = slices.CompactFunc(s.pending, func(a, b check) bool { return a.name == b.name })
}

func compareTrueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// answer takes the client's word on the response in flight. Any other nonce is not an answer.
func (s *subscription) answer(r Request) Answer {
	if !s.inFlight || r.Nonce != s.nonce {
		return NoAnswer
	}
	s.inFlight, s.answered = false, true
	s.rejected, s.detail = r.Rejected, r.Detail
	if r.Rejected {
		return Nack
	}
	return Ack
}

func (s *subscription) status(t Type) TypeStatus {
	status := TypeStatus{Type: t, Status: NotSent, Resources: s.sent.sent()}
	switch {
	case s.rejected:
		status.Status, status.Detail = Error, s.detail
	case s.inFlight:
		status.Status = Stale
	case s.answered || status.Resources > 0: // or resumed with all that there is
		status.Status = Synced
	}
	return status
}

// explicit returns the names that were asked for, in order.
func (s *subscription) explicit() []string {
	if s.wildcard {
		return slices.Sorted(maps.Keys(s.named))
	}
	names := make([]string, 0, len(s.sent.entries))
	for _, e := range s.sent.entries {
		names = append(names, e.name.Value())
	}
	return names
}

// asked says whether the name was asked for.
func (s *subscription) asked(name string) bool {
	if s.wildcard {
		return s.named[name]
	}
	_, ok := s.sent.get(name)
	return ok
}

// takeRemovals returns the names to remove, and forgets them.
func (s *subscription) takeRemovals() []string {
	slices.Sort(s.removals)
	names := slices.Compact(s.removals)
	names = slices.DeleteFunc(names, func(name string) bool { return !s.subscribed(name) })
	s.removals = nil
	for _, name := range names {
		s.forget(name)
	}
	return names
}

// forget records that the client has nothing under the name.
func (s *subscription) forget(name string) {
	if s.wildcard && !s.named[name] {
		s.sent.delete(name)
		return
	}
	s.sent.set(name, Version{})
}
