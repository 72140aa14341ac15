package config

import (
	"slices"
	"strings"
)

// Match tells whether s matches.
func (m *StringMatch) Match(s string) bool {
	if m.IgnoreCase && m.Kind != StringRegex {
		s = strings.ToLower(s)
	}
	switch m.Kind {
	case StringExact:
		return s == m.Value
	case StringPrefix:
		return strings.HasPrefix(s, m.Value)
	case StringSuffix:
		return strings.HasSuffix(s, m.Value)
	case StringContains:
		return strings.Contains(s, m.Value)
	case StringRegex:
		return m.Regex.MatchString(s)
	}
	return false
}

// Match tells whether a path without query matches.
func (m *PathMatch) Match(path string) bool {
	if m.Kind == PathRegex {
		return m.Regex.MatchString(path)
	}
	if m.IgnoreCase {
		path = strings.ToLower(path)
	}
	switch m.Kind {
	case PathPrefix:
		return strings.HasPrefix(path, m.Value)
	case PathExact:
		return path == m.Value
	case PathSeparatedPrefix:
		return path == m.Value || strings.HasPrefix(path, m.Value) && path[len(m.Value)] == '/'
	}
	return false
}

// Chain returns the chain for a connection, or nil: close it. As in Envoy the most specific match wins, looking at
// port, destination, server name, transport and ALPN in this order; sni is lower case.
func (l *Listener) Chain(port uint16, sni string, tls bool, alpn []string) *FilterChain {
	var best *FilterChain
	bestScore := -1
	for _, chain := range l.Chains {
		if score := chain.Match.score(port, sni, tls, alpn); score > bestScore {
			best, bestScore = chain, score
		}
	}
	if best == nil {
		return l.Default
	}
	return best
}

// Successor is the chain of l that has the place of one of old, an older version of l; nil if there is none.
func (l *Listener) Successor(old *Listener, chain *FilterChain) *FilterChain {
	if chain == old.Default {
		return l.Default
	}
	if i := slices.Index(old.Chains, chain); i >= 0 && i < len(l.Chains) {
		return l.Chains[i]
	}
	return nil
}

// score is -1 for no match, else larger for the more specific.
func (m *ChainMatch) score(port uint16, sni string, tls bool, alpn []string) int {
	score := 0
	if m.Port != 0 {
		if m.Port != port {
			return -1
		}
		score += 1 << 20
	}
	if len(m.ServerNames) > 0 {
		name := serverNameScore(m.ServerNames, sni)
		if name < 0 {
			return -1
		}
		score += name << 2
	}
	if m.Transport != "" {
		if (m.Transport == "tls") != tls {
			return -1
		}
		score += 2
	}
	if len(m.ALPN) > 0 {
		if !overlap(m.ALPN, alpn) {
			return -1
		}
		score++
	}
	return score
}

// serverNameScore is -1 for no match; an exact name beats the longest wildcard.
func serverNameScore(names []string, sni string) int {
	best := -1
	for _, name := range names {
		if name == sni {
			return 1 << 12
		}
		if suffix, ok := strings.CutPrefix(name, "*"); ok && strings.HasSuffix(sni, suffix) && len(sni) > len(suffix) {
			best = max(best, len(name))
		}
	}
	return best
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}
