package xds

import (
	"slices"
	"strconv"
)

// ServerSession is the server's end of one stream. It is not safe for concurrent use.
type ServerSession[S any] struct {
	catalog Catalog[S]
	delta   bool
	// state is what the current round delivers, newest what the next one will.
	state, newest S
	behind        bool
	types         [kinds]*subscription // nil: not requested
	nonce         uint64
}

// NewDeltaSession begins a delta stream at a state.
func NewDeltaSession[S any](catalog Catalog[S], state S) *ServerSession[S] {
	return &ServerSession[S]{catalog: catalog, delta: true, state: state}
}

// NewStateSession begins a state-of-the-world stream at a state.
func NewStateSession[S any](catalog Catalog[S], state S) *ServerSession[S] {
	return &ServerSession[S]{catalog: catalog, state: state}
}

// Request takes one request and says whether it answered the response in flight. A type that is not known is
// ignored, and so is an answer to anything but the last response. An error means that the stream must end.
func (s *ServerSession[S]) Request(r Request) (Answer, error) {
	row, ok := stepOf(r.Type)
	if !ok {
		return NoAnswer, nil
	}
	sub := s.types[row.Kind]
	known := sub != nil
	if !known {
		sub = &subscription{}
		s.types[row.Kind] = sub
	}
	answer := sub.answer(r)
	subscribe := s.subscribeState
	if s.delta {
		subscribe = s.subscribeDelta
	}
	if err := subscribe(row, sub, r, !known); err != nil {
		return answer, err
	}
	if sub.backlog > maxBacklog {
		return answer, ErrTooManyNames
	}
	return answer, nil
}

func (s *ServerSession[S]) subscribeDelta(row step, sub *subscription, r Request, first bool) error {
	if err := checkNames(r.Subscribe); err != nil {
		return err
	}
	var have map[string]string
	if first {
		have = r.InitialVersions
	}
	if slices.Contains(r.Subscribe, Wildcard) || first && row.Wildcard && len(r.Subscribe) == 0 {
		s.widen(row.Type(), sub, have)
		sub.empty = row.Empty && first && len(have) == 0 && len(sub.pending) == 0
	}
	names := sorted(r.Subscribe)
	sub.reserve(len(names))
	for _, name := range names {
		if name == Wildcard {
			continue
		}
		if sub.names() >= MaxNames && !sub.asked(name) {
			return ErrTooManyNames
		}
		sub.add(name, claimed(have, name))
	}
	for _, name := range r.Unsubscribe {
		if name == Wildcard {
			sub.narrow()
			continue
		}
		sub.drop(name)
	}
	return nil
}

// widen subscribes everything there is, and what the client has that may be gone.
func (s *ServerSession[S]) widen(t Type, sub *subscription, have map[string]string) {
	sub.widen()
	for name := range s.catalog.Names(s.state, t) {
		sub.look(name, false)
	}
	for name := range have {
		if _, exists := s.catalog.Get(s.state, t, name); !exists && len(name) <= MaxNameBytes {
			sub.look(name, false)
		}
	}
	sub.tidy()
	if len(have) == 0 {
		return
	}
	sub.sent.grow(len(sub.pending))
	for _, c := range sub.pending {
		if v := claimed(have, c.name); v != (Version{}) {
			sub.sent.set(c.name, v)
		}
	}
}

// sorted returns the names in order, each once.
func sorted(names []string) []string {
	for i := 1; i < len(names); i++ {
		if names[i-1] >= names[i] {
			return slices.Compact(slices.Sorted(slices.Values(names)))
		}
	}
	return names
}

// claimed is the version that the client says it has; one that is not ours is content to be replaced.
func claimed(have map[string]string, name string) Version {
	text, ok := have[name]
	if !ok {
		return Version{}
	}
	if v, ok := ParseVersion(text); ok {
		return v
	}
	return foreign
}

// Advance makes the newest state known. States that were not delivered are skipped.
func (s *ServerSession[S]) Advance(state S) { s.newest, s.behind = state, true }

// Next returns the next response to send; false: there is none before the next request or the next state.
func (s *ServerSession[S]) Next() (Response, bool) {
	for {
		response, found, blocked := s.deliver()
		if found || blocked || !s.behind {
			return response, found
		}
		s.advance()
	}
}

// advance begins the next round.
func (s *ServerSession[S]) advance() {
	old := s.state
	s.state, s.behind = s.newest, false
	for t, name := range s.catalog.Changed(old, s.state) {
		if sub := s.types[kindOf(t)]; sub != nil && sub.subscribed(name) {
			sub.look(name, false)
		}
	}
}

// deliver returns the next response of this round. A type that waits for its answer holds back those after it.
func (s *ServerSession[S]) deliver() (response Response, found, blocked bool) {
	for i := range order {
		row := &order[i]
		sub := s.types[row.Kind]
		upsert := sub != nil && row.Upsert && (len(sub.pending) > 0 || sub.empty)
		remove := sub != nil && row.Remove && len(sub.removals) > 0
		if !upsert && !remove {
			continue
		}
		if first := s.types[row.After]; sub.inFlight || first != nil && first.inFlight {
			return Response{}, false, true
		}
		response := Response{Type: row.Type()}
		if row.Upsert {
			s.upsert(*row, sub, &response)
		}
		if row.Remove {
			response.Removed = sub.takeRemovals()
		}
		if s.delta && (len(response.Resources)+len(response.Removed) > 0 || sub.empty) || !s.delta && response.Version != "" {
			s.send(sub, &response)
			return response, true, false
		}
	}
	return Response{}, false, false
}

func (s *ServerSession[S]) send(sub *subscription, response *Response) {
	s.nonce++
	response.Nonce = strconv.FormatUint(s.nonce, 10)
	sub.nonce, sub.inFlight, sub.empty = response.Nonce, true, false
}

// upsert compares what is pending with what the client has, until the response is full.
func (s *ServerSession[S]) upsert(row step, sub *subscription, response *Response) {
	sub.tidy()
	if len(sub.sent.entries) == 0 {
		sub.sent.grow(len(sub.pending))
	}
	done, size, changed := 0, 0, false
	for _, c := range sub.pending {
		resource, exists := s.catalog.Get(s.state, row.Type(), c.name)
		if exists && size > 0 && size+len(resource.Delta) > MaxResponseBytes && !(row.Whole && !s.delta) {
			break
		}
		done++
		if s.compare(row, sub, c, resource, exists) {
			changed = true
			if exists {
				if response.Resources == nil {
					response.Resources = make([]Resource, 0, min(1+len(sub.pending)-done, maxPresized))
				}
				response.Resources = append(response.Resources, resource)
				size += len(resource.Delta)
			}
		}
	}
	if sub.pending = sub.pending[done:]; len(sub.pending) == 0 {
		sub.pending, sub.backlog = nil, 0
		sub.sent.clip()
	}
	if !s.delta {
		s.whole(row, sub, response, changed)
	}
}

// compare records what is about to be sent for one name, and says whether anything is.
func (s *ServerSession[S]) compare(row step, sub *subscription, c check, r Resource, exists bool) bool {
	var have Version
	known := sub.sent.find(c.name)
	if known != nil {
		have = known.version
	}
	switch {
	case known == nil && !sub.wildcard:
		return false // unsubscribed meanwhile
	case exists && (c.always || have != r.Version):
		if known != nil {
			known.version = r.Version
		} else {
			sub.sent.set(c.name, r.Version)
		}
		s.resend(row.Resend, c.name)
		return true
	case !exists && (c.always || have != Version{}):
		sub.removals = append(sub.removals, c.name)
		return true
	}
	return false
}

func (s *ServerSession[S]) resend(k kind, name string) {
	sub := s.types[k]
	if sub == nil {
		return
	}
	if have, ok := sub.sent.get(name); ok && have != (Version{}) {
		sub.look(name, true)
	}
}

// Backlog counts the names that are to be looked at.
func (s *ServerSession[S]) Backlog() int {
	n := 0
	for _, sub := range s.types {
		if sub != nil {
			n += len(sub.pending)
		}
	}
	return n
}

// Waiting says whether a response is in flight.
func (s *ServerSession[S]) Waiting() bool {
	for _, sub := range s.types {
		if sub != nil && sub.inFlight {
			return true
		}
	}
	return false
}

// Status describes every type that was requested, in the order of delivery.
func (s *ServerSession[S]) Status() []TypeStatus {
	var status []TypeStatus
	for _, t := range Types() {
		if sub := s.types[kindOf(t)]; sub != nil {
			status = append(status, sub.status(t))
		}
	}
	return status
}
