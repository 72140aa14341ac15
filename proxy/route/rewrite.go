package route

import (
	"math/bits"
	"slices"
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
	if d.HTTPS {
		scheme = "https"
	} else if d.Scheme != "" {
		scheme = d.Scheme
	}
	if scheme != q.Scheme {
		authority = withoutDefaultPort(authority)
	}
	if d.Host != "" {
		authority = d.Host
	}
	if d.Port != 0 {
		authority = WithoutPort(authority) + ":" + strconv.Itoa(int(d.Port))
	}
	switch {
	case strings.Contains(d.Path, "?"):
		path = d.Path
	case d.Path != "":
		path = withQuery(d.Path, q.Query)
	case d.PrefixRewrite != "":
		path = withQuery(replacePrefix(&r.Match.Path, q.Path, d.PrefixRewrite), q.Query)
	}
	if d.StripQuery {
		path, _, _ = strings.Cut(path, "?")
	}
	return scheme + "://" + authority + path
}

// withoutDefaultPort drops the port that the old scheme implied: it would be wrong for the new one.
func withoutDefaultPort(authority string) string {
	if host := WithoutPort(authority); authority == host+":80" || authority == host+":443" {
		return host
	}
	return authority
}

// Hash combines the route's hash policies as Envoy does; false: the request has nothing to hash. A cookie that is
// missing and has a lifetime is made; cookie is then its Set-Cookie.
func (r *Route) Hash(q *Request) (hash uint64, ok bool, cookie string) {
	for i := range r.Forward.Hash {
		p := &r.Forward.Hash[i]
		one, found := hashOf(p, q)
		if !found && p.Kind == config.HashCookie && p.TTL != nil {
			value := strconv.FormatUint(q.Random|1<<63, 16)
			one, found, cookie = balance.HashString(value), true, setCookie(p, value)
		}
		if !found {
			continue
		}
		hash = bits.RotateLeft64(hash, 1) ^ one
		ok = true
		if p.Terminal {
			break
		}
	}
	return hash, ok, cookie
}

func setCookie(p *config.HashPolicy, value string) string {
	cookie := p.Name + `="` + value + `"`
	if *p.TTL > 0 {
		cookie += "; Max-Age=" + strconv.Itoa(int(p.TTL.Seconds()))
	}
	if p.Path != "" {
		cookie += "; Path=" + p.Path
	}
	return cookie + "; HttpOnly"
}

func hashOf(p *config.HashPolicy, q *Request) (uint64, bool) {
	if p.Kind == config.HashHeader && q.several(p.Name) {
		return balance.HashStrings(slices.Collect(q.values(p.Name))), true
	}
	value, found := hashInput(p, q)
	return balance.HashString(value), found
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
