package proxy

import (
	"context"
	"net/netip"

	"github.com/periplus-mesh/periplus/proxy/admin"
)

func (s *sidecar) serveAdmin(ctx context.Context) error {
	return admin.Run(ctx, admin.Config{
		Listener: s.config.AdminListener, Gatherer: s.config.Metrics, Level: s.config.LogLevel, Log: s.config.Log,
		Node: s.node, Began: s.began, Source: s.source, Resources: s.resources, View: s.clusters.View,
		Bound: s.bound, State: s.state,
		Plane:  func() string { return s.plane.Latest().Target },
		Drain:  s.in.forwarder.Drain,
		Quit:   func() { s.ask(func(p *phase) { p.quit = true }) },
		Failed: func(failed bool) { s.ask(func(p *phase) { p.failed = failed }) },
	})
}

// state is Envoy's ServerInfo.State.
func (s *sidecar) state() (state string, ready bool) {
	p := s.phase.Latest()
	switch {
	case p.draining || p.quit:
		return "DRAINING", false
	case !s.ready.Latest():
		return "INITIALIZING", false
	}
	return "LIVE", !p.failed
}

func (s *sidecar) bound() map[string]netip.AddrPort {
	out := map[string]netip.AddrPort{}
	s.in.listeners.addresses(out)
	s.out.listeners.addresses(out)
	return out
}
