package inbound

import (
	"context"
	"errors"
	"sync"

	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
)

// tunnels are the TCP connections that are open. Of a request the rules are asked when it comes, of a connection when it
// begins; it may stay open for days, so they are asked again when they change.
type tunnels struct {
	mu   sync.Mutex // guards below
	open map[*tunnel]struct{}
}

type tunnel struct {
	// Of the newest configuration that it was judged by.
	listener *config.Listener
	chain    *config.FilterChain
	peer     authz.Peer
	end      context.CancelCauseFunc
}

// Follow ends the TCP connections that a newer Current refuses, until ctx ends. It needs Current.
func (i *Inbound) Follow(ctx context.Context) error {
	for {
		c, next := i.config.Current.Get()
		i.tunnels.mu.Lock()
		for t := range i.tunnels.open {
			i.judge(t, c)
		}
		i.tunnels.mu.Unlock()
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// begin returns the context of a TCP connection that was permitted, and what ends it.
func (i *Inbound) begin(ctx context.Context, c forward.Connection, chain *config.FilterChain) (context.Context, func()) {
	if i.config.Current == nil {
		return ctx, func() {}
	}
	ctx, end := context.WithCancelCause(ctx)
	t := &tunnel{c.Listener, chain, c.Peer, end}
	i.tunnels.mu.Lock()
	defer i.tunnels.mu.Unlock()
	if i.tunnels.open == nil {
		i.tunnels.open = make(map[*tunnel]struct{})
	}
	i.tunnels.open[t] = struct{}{}
	i.judge(t, i.config.Current.Latest()) // Follow may have been here since the permit was given
	return ctx, func() {
		end(nil)
		i.tunnels.mu.Lock()
		defer i.tunnels.mu.Unlock()
		delete(i.tunnels.open, t)
	}
}

// judge asks the rules of c about an open connection. One whose listener or chain is gone is left to the drain.
func (i *Inbound) judge(t *tunnel, c *config.Config) {
	if c == nil || c.Listeners[t.listener.Name] == nil || c.Listeners[t.listener.Name] == t.listener {
		return
	}
	latest := c.Listeners[t.listener.Name]
	chain := latest.Successor(t.listener, t.chain)
	if chain == nil {
		return
	}
	t.listener, t.chain = latest, chain
	if permit, policy := authz.Connection(chain.RBAC, &t.peer); !permit.Granted() {
		i.config.Log.Info("inbound connection ended: it is not permitted any more", "listener", latest.Name, "peer", t.peer.ID, "policy", policy)
		t.end(refusal(policy))
	}
}

// refusal is why a connection ends, in Envoy's words.
func refusal(policy string) error {
	if policy == "" {
		policy = "none"
	}
	return errors.New("rbac_access_denied_matched_policy[" + policy + "]")
}
