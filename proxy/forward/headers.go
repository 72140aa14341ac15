package forward

import (
	"strconv"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
)

// clientCert: x-forwarded-client-cert is only ever believed from this proxy's own handshake, unless configured.
func (s *session) clientCert(e *http1.Edit) {
	const name = "x-forwarded-client-cert"
	pair := http1.Pair{Name: name, Value: s.c.ClientCert}
	mode := s.c.HTTP.ForwardClientCert
	switch {
	case mode == config.AlwaysForwardOnlyXFCC, mode == config.ForwardOnlyXFCC && s.c.Peer.TLS:
	case mode == config.SanitizeSetXFCC && s.c.ClientCert != "":
		e.Set = append(e.Set, pair)
	case mode == config.AppendForwardXFCC && s.c.ClientCert != "":
		e.Add = append(e.Add, pair)
	default:
		e.Remove = append(e.Remove, name)
	}
}

// applyOps turns mutations into an edit.
func applyOps(e *http1.Edit, has func(string) bool, remove []string, ops []config.HeaderOp) {
	e.Remove = append(e.Remove, remove...)
	for i := range ops {
		op := &ops[i]
		pair := http1.Pair{Name: op.Name, Value: op.Value}
		switch {
		case op.Name == "host" || op.Name == ":authority":
			e.Host = op.Value
		case op.Action == config.AppendOrAdd, op.Action == config.AddIfAbsent && !has(op.Name):
			e.Add = append(e.Add, pair)
		case op.Action == config.OverwriteOrAdd, op.Action == config.OverwriteIfExists && has(op.Name):
			e.Set = append(e.Set, pair)
		}
	}
}

// keepHost tells the upstream which host was rewritten.
func (s *session) keepHost(host string) {
	s.edit.Set = append(s.edit.Set, http1.Pair{Name: "x-envoy-original-host", Value: host})
	if s.call.Route.Forward.AppendForwardedHost {
		if value, ok := s.query.Value("x-forwarded-host"); ok {
			host = value + "," + host
		}
		s.edit.Set = append(s.edit.Set, http1.Pair{Name: "x-forwarded-host", Value: host})
	}
}

// countAttempt sets x-envoy-attempt-count.
func (s *session) countAttempt() {
	if !s.call.Route.VirtualHost.IncludeAttempts {
		return
	}
	const name = "x-envoy-attempt-count"
	value := "1"
	if s.call.Attempts > 1 {
		value = strconv.Itoa(s.call.Attempts)
	}
	for i := range s.edit.Set {
		if s.edit.Set[i].Name == name {
			s.edit.Set[i].Value = value
			return
		}
	}
	s.edit.Set = append(s.edit.Set, http1.Pair{Name: name, Value: value})
}

// attempts is x-envoy-attempt-count for the response, if it is asked for.
func (s *session) attempts() []http1.Pair {
	if !s.call.Route.VirtualHost.AttemptsInResponse {
		return nil
	}
	return []http1.Pair{{Name: "x-envoy-attempt-count", Value: strconv.Itoa(s.call.Attempts)}}
}
