package inbound

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/trust"
)

// connections are those that are open. What was asked when they began, whether the peer's trust domain is trusted and, of
// TCP, whether the rules permit it, is asked again when it changes: a connection may stay open for days. Of HTTP the rules
// are asked for each request.
type connections struct {
	mu   sync.Mutex // guards below
	open map[*connection]struct{}
}

type connection struct {
	// Of the newest configuration that it was judged by.
	listener *config.Listener
	chain    *config.FilterChain
	peer     authz.Peer
	domain   spiffeid.TrustDomain // the peer's; zero without TLS
	end      func(cause error)
}

// Follow ends the connections that a newer Current or Source refuses, until ctx ends. It needs both.
func (i *Inbound) Follow(ctx context.Context) error {
	for {
		current, changed := i.config.Current.Get()
		material, rotated := i.config.Source.Get()
		i.connections.mu.Lock()
		for c := range i.connections.open {
			i.judge(c, current, material)
		}
		i.connections.mu.Unlock()
		select {
		case <-changed:
		case <-rotated:
		case <-ctx.Done():
			return nil
		}
	}
}

// begin returns the context of a connection that was accepted as accepted, and what must be called when it is done.
func (i *Inbound) begin(ctx context.Context, accepted net.Conn, chain *config.FilterChain, about forward.Connection) (context.Context, func()) {
	if i.config.Current == nil || i.config.Source == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c := &connection{listener: about.Listener, chain: chain, peer: about.Peer, end: cancel}
	if chain.TCP == nil { // it looks at ctx between requests only
		c.end = func(cause error) { cancel(cause); accepted.Close() }
	}
	if id, err := spiffeid.FromString(about.Peer.ID); err == nil {
		c.domain = id.TrustDomain()
	}
	i.connections.mu.Lock()
	defer i.connections.mu.Unlock()
	if i.connections.open == nil {
		i.connections.open = make(map[*connection]struct{})
	}
	i.connections.open[c] = struct{}{}
	material, _ := i.config.Source.Get()
	i.judge(c, i.config.Current.Latest(), material) // Follow may have been here since it was accepted
	return ctx, func() {
		cancel(nil)
		i.connections.mu.Lock()
		defer i.connections.mu.Unlock()
		delete(i.connections.open, c)
	}
}

// judge ends c if it would not be accepted any more.
func (i *Inbound) judge(c *connection, current *config.Config, material *trust.Material) {
	if !c.domain.IsZero() && len(material.Bundles[c.domain]) == 0 {
		i.config.Log.Warn("inbound connection ended: its trust domain is not trusted any more", "listener", c.listener.Name, "peer", c.peer.ID)
		c.end(errors.New("trust_domain_withdrawn"))
		return
	}
	if permitted, policy := c.permitted(current); !permitted {
		i.config.Log.Info("inbound connection ended: it is not permitted any more", "listener", c.listener.Name, "peer", c.peer.ID, "policy", policy)
		c.end(refusal(policy))
	}
}

// permitted asks the rules of a TCP connection, if they are others than before. One whose listener or chain is gone is left
// to the drain.
func (c *connection) permitted(current *config.Config) (ok bool, policy string) {
	if c.chain.TCP == nil || current == nil {
		return true, ""
	}
	latest := current.Listeners[c.listener.Name]
	if latest == nil || latest == c.listener {
		return true, ""
	}
	chain := latest.Successor(c.listener, c.chain)
	if chain == nil || chain.TCP == nil {
		return true, ""
	}
	c.listener, c.chain = latest, chain
	permit, policy := authz.Connection(chain.RBAC, &c.peer)
	return permit.Granted(), policy
}

// refusal is why a connection ends, in Envoy's words.
func refusal(policy string) error {
	if policy == "" {
		policy = "none"
	}
	return errors.New("rbac_access_denied_matched_policy[" + policy + "]")
}
