package route

import (
	"slices"
	"strings"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// Table is a compiled route table. Immutable.
type Table struct {
	ignorePort bool
	exact      map[string]*host
	suffixes   []wildcard // "*.suffix", longest first
	prefixes   []wildcard // "prefix.*", longest first
	any        *host
}

type host struct{ routes []*Route }

type wildcard struct {
	part string
	host *host
}

// Route is a route with everything that its table and virtual host add.
type Route struct {
	*config.Route
	VirtualHost  *config.VirtualHost
	Retry        *config.RetryPolicy // nil: none
	Destinations []Destination       // of Forward
	// Headers are for responses that the proxy makes itself.
	Headers config.HeaderOps
}

// Destination is one weighted cluster of a route.
type Destination struct {
	Cluster     string
	Weight      uint32
	HostRewrite string
	Headers     config.HeaderOps
}

// Compile prepares t; nil is the empty table.
func Compile(t *config.RouteTable) *Table {
	out := &Table{exact: map[string]*host{}}
	if t == nil {
		return out
	}
	out.ignorePort = t.IgnorePort
	for _, v := range t.VirtualHosts {
		h := &host{}
		for _, r := range v.Routes {
			h.routes = append(h.routes, compile(t, v, r))
		}
		for _, domain := range v.Domains {
			out.add(domain, h)
		}
	}
	longest := func(a, b wildcard) int { return len(b.part) - len(a.part) }
	slices.SortStableFunc(out.suffixes, longest)
	slices.SortStableFunc(out.prefixes, longest)
	return out
}

func (t *Table) add(domain string, h *host) {
	switch {
	case domain == "*":
		t.any = h
	case strings.HasPrefix(domain, "*"):
		t.suffixes = append(t.suffixes, wildcard{domain[1:], h})
	case strings.HasSuffix(domain, "*"):
		t.prefixes = append(t.prefixes, wildcard{domain[:len(domain)-1], h})
	default:
		t.exact[domain] = h
	}
}

func compile(t *config.RouteTable, v *config.VirtualHost, r *config.Route) *Route {
	out := &Route{Route: r, VirtualHost: v, Headers: merge(t, &v.Headers, &r.Headers)}
	if r.Forward == nil {
		return out
	}
	if out.Retry = r.Forward.Retry; out.Retry == nil {
		out.Retry = v.Retry
	}
	for i := range r.Forward.Clusters {
		c := &r.Forward.Clusters[i]
		rewrite := c.HostRewrite
		if rewrite == "" {
			rewrite = r.Forward.HostRewrite
		}
		out.Destinations = append(out.Destinations, Destination{
			Cluster: c.Name, Weight: c.Weight, HostRewrite: rewrite, Headers: merge(t, &v.Headers, &r.Headers, &c.Headers),
		})
	}
	return out
}

// merge puts the mutations in the order in which Envoy applies them: the most specific first, unless it shall win.
func merge(t *config.RouteTable, levels ...*config.HeaderOps) (out config.HeaderOps) {
	levels = append([]*config.HeaderOps{&t.Headers}, levels...)
	if !t.MostSpecificWins {
		slices.Reverse(levels)
	}
	for _, l := range levels {
		out.Request = append(out.Request, l.Request...)
		out.Response = append(out.Response, l.Response...)
		out.RemoveRequest = append(out.RemoveRequest, l.RemoveRequest...)
		out.RemoveResponse = append(out.RemoveResponse, l.RemoveResponse...)
	}
	return out
}

// Match returns the route of a request, or nil: 404, flag NR.
func (t *Table) Match(r *Request) *Route {
	h := t.host(r.Authority)
	if h == nil {
		return nil
	}
	for _, route := range h.routes {
		if matchRoute(&route.Match, r) {
			return route
		}
	}
	return nil
}

// host finds the virtual host: exact, longest suffix, longest prefix, any.
func (t *Table) host(authority string) *host {
	if t.ignorePort {
		authority = WithoutPort(authority)
	}
	authority = lower(authority)
	if h := t.exact[authority]; h != nil {
		return h
	}
	for i := range t.suffixes {
		if w := &t.suffixes[i]; len(authority) > len(w.part) && strings.HasSuffix(authority, w.part) {
			return w.host
		}
	}
	for i := range t.prefixes {
		if w := &t.prefixes[i]; len(authority) > len(w.part) && strings.HasPrefix(authority, w.part) {
			return w.host
		}
	}
	return t.any
}

// WithoutPort leaves the port off an authority; the brackets of an IPv6 address stay.
func WithoutPort(authority string) string {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.IndexByte(authority[i:], ']') >= 0 {
		return authority
	}
	return authority[:i]
}

// lower allocates only if there is something to change.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// Choose picks a destination by weight; random is uniform.
func (r *Route) Choose(random uint64) *Destination {
	if len(r.Destinations) == 1 {
		return &r.Destinations[0]
	}
	at := random % r.Forward.TotalWeight
	for i := range r.Destinations {
		if w := uint64(r.Destinations[i].Weight); at < w {
			return &r.Destinations[i]
		} else {
			at -= w
		}
	}
	return &r.Destinations[len(r.Destinations)-1]
}
