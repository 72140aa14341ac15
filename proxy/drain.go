package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// untilQuit returns when ctx ends, somebody asks for the end, or life ends because a part failed.
func (s *sidecar) untilQuit(ctx, life context.Context) {
	for {
		p, next := s.phase.Get()
		if p.quit {
			return
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		case <-life.Done():
			return
		}
	}
}

// ask changes the phase.
func (s *sidecar) ask(change func(*phase)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.phase.Latest()
	change(&p)
	s.phase.Set(p)
}

// drain: say so, and let no inbound connection live longer than its request; wait until clients have heard; end
// inbound, and then outbound, for what runs may still call out.
func (s *sidecar) drain(ctx context.Context) {
	s.config.Log.Info("draining")
	s.ask(func(p *phase) { p.draining = true })
	s.in.forwarder.Drain()
	s.awaitAcknowledged(ctx)
	sleep(ctx, s.config.DrainDelay)
	ctx, cancel := context.WithTimeout(ctx, s.config.DrainTime)
	defer cancel()
	s.in.end(ctx)
	s.out.end(ctx)
	s.config.Log.Info("drained")
}

// end takes no new connections, waits for the requests that run, and when ctx ends cuts them.
func (h *half) end(ctx context.Context) {
	h.listeners.close()
	if h.closeIdle != nil {
		h.closeIdle()
	}
	h.http2.Drain(ctx)
	h.forwarder.CloseIdle()
	h.forwarder.Wait(ctx)
	h.http2.Wait(ctx)
	h.listeners.wait(ctx)
}

// awaitAcknowledged returns once the agent knows, or at once if there is none to tell.
func (s *sidecar) awaitAcknowledged(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.config.DrainDelay)
	defer cancel()
	for s.announcement.Latest() != nil {
		status, next := s.announced.Get()
		if !status.Connected || status.Acknowledged.GetHealth() == periplusv1.Health_HEALTH_DRAINING {
			return
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func dialTLS(ctx context.Context, c *tls.Config, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, c)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// serviceName is the service without its namespace.
func serviceName(service string) string {
	name, _, _ := strings.Cut(service, ".")
	return name
}
