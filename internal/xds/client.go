package xds

import (
	"maps"
	"slices"
)

// ClientSession is the client's end of delta streams, one after the other: what it remembers outlives a stream and
// resumes the next. It is not safe for concurrent use.
type ClientSession struct {
	types map[Type]*interest
}

// interest is one type that the client wants.
type interest struct {
	wildcard bool
	names    map[string]bool
	// have is the version of every resource that was accepted, as the server calls it.
	have map[string]string
}

// NewClientSession subscribes the types whole.
func NewClientSession(wildcard ...Type) *ClientSession {
	c := &ClientSession{types: make(map[Type]*interest)}
	for _, t := range wildcard {
		c.interest(t).wildcard = true
	}
	return c
}

func (c *ClientSession) interest(t Type) *interest {
	if c.types[t] == nil {
		c.types[t] = &interest{names: make(map[string]bool), have: make(map[string]string)}
	}
	return c.types[t]
}

// Wants says whether a resource is subscribed.
func (c *ClientSession) Wants(t Type, name string) bool {
	i := c.types[t]
	return i != nil && (i.wildcard || i.names[name])
}

// Open returns the first requests of a new stream, in order of delivery.
func (c *ClientSession) Open() []Request {
	var requests []Request
	for _, t := range Types() {
		i := c.types[t]
		if i == nil || !i.wildcard && len(i.names) == 0 {
			continue
		}
		r := Request{Type: t, Subscribe: slices.Sorted(maps.Keys(i.names)), InitialVersions: maps.Clone(i.have)}
		if i.wildcard {
			r.Subscribe = append([]string{Wildcard}, r.Subscribe...)
		}
		requests = append(requests, r)
	}
	return requests
}

// Subscribe changes what is wanted by name and returns the request that says so; false: nothing changed.
func (c *ClientSession) Subscribe(t Type, add, remove []string) (Request, bool) {
	i, r := c.interest(t), Request{Type: t}
	for _, name := range add {
		if !i.names[name] {
			i.names[name] = true
			r.Subscribe = append(r.Subscribe, name)
		}
	}
	for _, name := range remove {
		if i.names[name] {
			delete(i.names, name)
			if !i.wildcard {
				delete(i.have, name)
			}
			r.Unsubscribe = append(r.Unsubscribe, name)
		}
	}
	return r, len(r.Subscribe)+len(r.Unsubscribe) > 0
}

// Accept records what was applied, by name and version as the server calls it, and returns the ACK.
func (c *ClientSession) Accept(t Type, nonce string, versions map[string]string, removed []string) Request {
	i := c.interest(t)
	for name, version := range versions {
		if i.wildcard || i.names[name] {
			i.have[name] = version
		}
	}
	for _, name := range removed {
		delete(i.have, name)
	}
	return Request{Type: t, Nonce: nonce}
}

// Reject returns the NACK. What was accepted before stays, and so do its versions.
func (c *ClientSession) Reject(t Type, nonce string, reason error) Request {
	return Request{Type: t, Nonce: nonce, Rejected: true, Detail: reason.Error()}
}
