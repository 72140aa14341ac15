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
		return m.Invert // as Envoy since 1.26: an inverted matcher holds for what is not there
	}
	return matchPresent(m, value) != m.Invert
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
		if !MatchHeader(&m.Headers[i], r) {
			return false
		}
	}
	for i := range m.Query {
		value, found := parameter(r.Query, m.Query[i].Name)
		if !found || m.Query[i].Value != nil && !m.Query[i].Value.Match(value) {
			return false
		}
	}
	if m.GRPC && !isGRPC(r) {
		return false
	}
	return m.Fraction == nil || r.Random%1_000_000 < uint64(*m.Fraction)
}

func isGRPC(r *Request) bool {
	value, _ := r.Value("content-type")
	rest, ok := strings.CutPrefix(value, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
