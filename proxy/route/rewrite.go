package route

import (
	"math/bits"
	"strconv"
	"strings"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
)

// RewritePath returns the path with query that goes upstream; "" means unchanged.
func (r *Route) RewritePath(q *Request) string {
	f := r.Forward
	path := ""
	switch {
	case f.RegexRewrite != nil:
		path = f.RegexRewrite.Pattern.ReplaceAllString(q.Path, f.RegexRewrite.Substitution)
	case f.PrefixRewrite != "":
		path = replacePrefix(&r.Match.Path, q.Path, f.PrefixRewrite)
	default:
		return ""
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return withQuery(path, q.Query)
}

func replacePrefix(m *config.PathMatch, path, with string) string {
	if m.Kind == config.PathRegex || len(m.Value) > len(path) {
		return with
	}
	return with + path[len(m.Value):]
}

func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// Location is where a redirect leads.
func (r *Route) Location(q *Request) string {
	d := r.Redirect
	scheme, authority, path := q.Scheme, q.Authority, withQuery(q.Path, q.Query)
	if d.Scheme != "" {
		scheme = d.Scheme
	}
	if d.HTTPS {
		scheme = "https"
	}
	if d.Host != "" {
		authority = d.Host
	}
	if d.Port != 0 {
		authority = withoutPort(authority) + ":" + strconv.Itoa(int(d.Port))
	}
	switch {
	case d.Path != "":
		path = d.Path
	case d.PrefixRewrite != "":
		path = withQuery(replacePrefix(&r.Match.Path, q.Path, d.PrefixRewrite), q.Query)
	}
	if d.StripQuery {
		path, _, _ = strings.Cut(path, "?")
	}
	return scheme + "://" + authority + path
}

// Hash combines the route's hash policies as Envoy does; false: the request has nothing to hash.
func (r *Route) Hash(q *Request) (hash uint64, ok bool) {
	for i := range r.Forward.Hash {
		p := &r.Forward.Hash[i]
		value, found := hashInput(p, q)
		if !found {
			continue
		}
		hash = bits.RotateLeft64(hash, 1) ^ balance.HashString(value)
		ok = true
		if p.Terminal {
			break
		}
	}
	return hash, ok
}

func hashInput(p *config.HashPolicy, q *Request) (string, bool) {
	switch p.Kind {
	case config.HashHeader:
		return q.Value(p.Name)
	case config.HashQuery:
		return parameter(q.Query, p.Name)
	case config.HashCookie:
		return q.cookie(p.Name)
	case config.HashSourceIP:
		return q.Source.String(), q.Source.IsValid()
	}
	return "", false
}
