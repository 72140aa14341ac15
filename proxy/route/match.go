package route

import (
	"strconv"
	"strings"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// MatchHeader tells whether the request's header matches, several values joined.
func MatchHeader(m *config.HeaderMatch, r *Request) bool {
	value, found := r.Value(m.Name)
	return MatchValue(m, value, found)
}

// MatchValue is MatchHeader on a value that is at hand.
func MatchValue(m *config.HeaderMatch, value string, found bool) bool {
	if m.Present {
		return found != m.Invert
	}
	if !found && !m.MissingAsEmpty {
		return false // as in Envoy: what is not there matches nothing, inverted or not
	}
	return matchPresent(m, value) != m.Invert
}

// matchAny is how Envoy's routes take a header that occurs several times: one matching value is enough.
func matchAny(m *config.HeaderMatch, r *Request) bool {
	if m.Present || !r.several(m.Name) {
		return MatchHeader(m, r)
	}
	for i := range r.Headers.Len() {
		if name, value := r.Headers.At(i); EqualFold(name, m.Name) && matchPresent(m, value) {
			return !m.Invert
		}
	}
	return m.Invert
}

func matchPresent(m *config.HeaderMatch, value string) bool {
	if m.Range != nil {
		n, err := strconv.ParseInt(value, 10, 64)
		return err == nil && m.Range.Start <= n && n < m.Range.End
	}
	return m.Value == nil || m.Value.Match(value)
}

func matchRoute(m *config.RouteMatch, r *Request) bool {
	if !m.Path.Match(r.Path) {
		return false
	}
	for i := range m.Headers {
		if !matchAny(&m.Headers[i], r) {
			return false
		}
	}
	for i := range m.Query {
		if !matchQuery(&m.Query[i], r.Query) {
			return false
		}
	}
	if m.GRPC && !isGRPC(r) {
		return false
	}
	return m.Fraction == nil || r.Random%1_000_000 < uint64(*m.Fraction)
}

func matchQuery(m *config.QueryMatch, query string) bool {
	value, found := parameter(query, m.Name)
	if m.Absent {
		return !found
	}
	return found && (m.Value == nil || m.Value.Match(value))
}

func isGRPC(r *Request) bool {
	value, _ := r.Value("content-type")
	rest, ok := strings.CutPrefix(value, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
