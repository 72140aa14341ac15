package forward

import (
	"strconv"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// ForwardedCert applies forward_client_cert_details: whether an x-forwarded-client-cert that the client sent goes on,
// and what is added to it, "": nothing. It is only ever believed from this proxy's own handshake, unless configured.
func (c *Connection) ForwardedCert(mode config.ForwardClientCert) (keep bool, add string) {
	switch mode {
	case config.AlwaysForwardOnlyXFCC:
		return true, ""
	case config.ForwardOnlyXFCC:
		return c.Peer.TLS, ""
	case config.SanitizeSetXFCC:
		return false, c.ClientCert
	case config.AppendForwardXFCC:
		return c.ClientCert != "", c.ClientCert
	}
	return false, ""
}

func (s *session) clientCert(e *message.Edit) {
	const name = "x-forwarded-client-cert"
	keep, add := s.c.ForwardedCert(s.c.HTTP.ForwardClientCert)
	if !keep {
		e.Remove = append(e.Remove, name)
	}
	if add != "" {
		e.Add = append(e.Add, message.Pair{Name: name, Value: add})
	}
}

// applyOps turns mutations into an edit.
func applyOps(e *message.Edit, has func(string) bool, remove []string, ops []config.HeaderOp) {
	for _, name := range remove {
		e.Drop(name)
	}
	for i := range ops {
		op := &ops[i]
		switch {
		case op.Name == "host" || op.Name == ":authority":
			e.Host = op.Value
		case op.Action == config.AppendOrAdd, op.Action == config.AddIfAbsent && !e.Sets(op.Name) && !has(op.Name):
			e.Add = append(e.Add, message.Pair{Name: op.Name, Value: op.Value})
		case op.Action == config.OverwriteOrAdd, op.Action == config.OverwriteIfExists && (e.Sets(op.Name) || has(op.Name)):
			e.Replace(op.Name, op.Value)
		}
	}
}

// keepHost tells the upstream which host was rewritten.
func (s *session) keepHost(host string) {
	s.edit.Replace("x-envoy-original-host", host)
	if s.call.Route.Forward.AppendForwardedHost {
		if value, ok := s.query.Value("x-forwarded-host"); ok {
			host = value + "," + host
		}
		s.edit.Replace("x-forwarded-host", host)
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
	s.edit.Replace(name, value)
}

// attempts is x-envoy-attempt-count for the response, if it is asked for.
func (s *session) attempts() []message.Pair {
	if !s.call.Route.VirtualHost.AttemptsInResponse {
		return nil
	}
	return []message.Pair{{Name: "x-envoy-attempt-count", Value: strconv.Itoa(s.call.Attempts)}}
}
