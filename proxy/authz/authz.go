package authz

import (
	"net/netip"
	"strings"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// Permit is the proof that rules were asked and did not refuse. Only this package makes one that counts.
type Permit struct{ granted bool }

// Granted tells whether to go on.
func (p Permit) Granted() bool { return p.granted }

// Require panics on a Permit that was not granted: forwarding without asking is a bug, not bad input.
func (p Permit) Require() {
	if !p.granted {
		panic("authz: forwarding without a permit")
	}
}

// Peer is what is known of a connection. ID comes from the verified certificate alone.
type Peer struct {
	ID          string // SPIFFE ID with scheme; "" if there was no TLS
	TLS         bool
	ServerName  string
	Source      netip.Addr
	Destination netip.AddrPort
}

// subject is what conditions look at. request is nil for a connection.
type subject struct {
	peer    *Peer
	request *route.Request
}

// Request decides on a request with a normalised path. If it refuses, policy is the one that denied, or "" if none
// allowed.
func Request(rules []*config.RBAC, peer *Peer, r *route.Request) (permit Permit, policy string) {
	return evaluate(rules, &subject{peer: peer, request: r})
}

// Connection decides on a connection.
func Connection(rules []*config.RBAC, peer *Peer) (permit Permit, policy string) {
	return evaluate(rules, &subject{peer: peer})
}

// evaluate: first whatever denies, then whatever must allow. Shadow and log rules decide nothing.
func evaluate(rules []*config.RBAC, s *subject) (Permit, string) {
	for _, r := range rules {
		if r.Action == config.RBACDeny && !r.Shadow {
			if name, found := s.matching(r, true); found {
				return Permit{}, name
			}
		}
	}
	for _, r := range rules {
		if r.Action == config.RBACAllow && !r.Shadow {
			if _, found := s.matching(r, false); !found {
				return Permit{}, ""
			}
		}
	}
	return Permit{granted: true}, ""
}

// matching returns the first policy that matches. eager tells how doubt is settled: a header with several values
// denies if one of them would, and allows only if all of them would (CVE-2026-26308).
func (s *subject) matching(r *config.RBAC, eager bool) (string, bool) {
	for i := range r.Policies {
		p := &r.Policies[i]
		if s.any(p.Permissions, eager) && s.any(p.Principals, eager) {
			return p.Name, true
		}
	}
	return "", false
}

func (s *subject) any(conditions []config.Condition, eager bool) bool {
	for i := range conditions {
		if s.holds(&conditions[i], eager) {
			return true
		}
	}
	return false
}

func (s *subject) all(conditions []config.Condition, eager bool) bool {
	for i := range conditions {
		if !s.holds(&conditions[i], eager) {
			return false
		}
	}
	return true
}

func (s *subject) holds(c *config.Condition, eager bool) bool {
	switch c.Kind {
	case config.Any:
		return true
	case config.And:
		return s.all(c.Of, eager)
	case config.Or:
		return s.any(c.Of, eager)
	case config.Not:
		return len(c.Of) == 1 && !s.holds(&c.Of[0], !eager)
	case config.Header:
		return s.request != nil && s.header(c.Header, eager)
	case config.Path:
		return s.request != nil && c.String.Match(s.request.Path)
	case config.DestinationIP:
		return c.Prefix.Contains(s.peer.Destination.Addr())
	case config.DestinationPort:
		return c.Port == s.peer.Destination.Port()
	case config.ServerName:
		return c.String.Match(s.peer.ServerName)
	case config.SourceIP, config.RemoteIP: // no hop is trusted to say another address
		return c.Prefix.Contains(s.peer.Source)
	case config.Authenticated:
		return s.peer.ID != "" && (c.String == nil || c.String.Match(s.peer.ID))
	}
	return false
}

// header takes an inverted matcher for a Not.
func (s *subject) header(m *config.HeaderMatch, eager bool) bool {
	if m.Invert {
		plain := *m
		plain.Invert = false
		return !s.header(&plain, !eager)
	}
	if strings.HasPrefix(m.Name, ":") || m.Name == "host" {
		return s.pseudo(m, eager)
	}
	found, one, every := false, false, true
	for i := range s.request.Headers.Len() {
		name, value := s.request.Headers.At(i)
		if !route.EqualFold(name, m.Name) {
			continue
		}
		found = true
		if route.MatchValue(m, value, true) {
			one = true
		} else {
			every = false
		}
	}
	switch {
	case !found:
		return route.MatchValue(m, "", false)
	case eager:
		return one || route.MatchHeader(m, s.request)
	}
	return every
}

// pseudo: an authority is compared in lower case, and denied with or without its port (CVE-2021-39155) and the dot of a
// rooted name, which servers leave off.
func (s *subject) pseudo(m *config.HeaderMatch, eager bool) bool {
	if m.Name != ":authority" && m.Name != "host" {
		return route.MatchHeader(m, s.request)
	}
	authority := strings.ToLower(s.request.Authority)
	if route.MatchValue(m, authority, true) {
		return true
	}
	if !eager {
		return false
	}
	host := route.WithoutPort(authority)
	bare := strings.TrimSuffix(host, ".")
	return route.MatchValue(m, host, true) || route.MatchValue(m, bare, true) || route.MatchValue(m, bare+authority[len(host):], true)
}
