package http2

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
)

// key: a connection belongs to an address under one version of the cluster's settings.
type key struct {
	settings *config.Settings
	address  string
	http2    bool
}

// upstreams are the connections to hosts. The zero value is ready.
type upstreams struct {
	mu   sync.Mutex
	pool map[key]*pool // guarded by mu
}

// pool holds the connections to one host.
type pool struct {
	dial sync.Mutex // held while dialling, so that a burst of requests opens one connection

	mu    sync.Mutex
	conns []*upstream // guarded by mu
}

// upstream is one connection.
type upstream struct {
	*http.ClientConn
	peer   string    // SPIFFE ID; "" without TLS
	uses   uint32    // guarded by the pool's mu
	opened time.Time // guarded likewise, as is idle
	idle   time.Time // when it was last seen with nothing in flight
}

func (u *upstreams) get(k key) *pool {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.pool[k]
	if p == nil {
		if u.pool == nil {
			u.pool = map[key]*pool{}
		}
		p = &pool{}
		u.pool[k] = p
	}
	return p
}

// connect returns a connection on which a request is reserved; if there are too many it waits for its turn, until a
// time; zero: as long as ctx.
func (u *upstreams) connect(ctx context.Context, call *forward.Call, http2 bool, until time.Time) (c *upstream, err error) {
	if c, err = u.tryConnect(ctx, call, http2); !errors.Is(err, forward.ErrOverflow) {
		return c, err
	}
	err = call.Cluster.Queue(ctx, until, func() (err error) {
		c, err = u.tryConnect(ctx, call, http2)
		return err
	})
	return c, err
}

func (u *upstreams) tryConnect(ctx context.Context, call *forward.Call, http2 bool) (*upstream, error) {
	k := key{call.Cluster.Settings, call.Host.Address, http2}
	p := u.get(k)
	if c := p.reserve(k); c != nil {
		return c, nil
	}
	p.dial.Lock()
	defer p.dial.Unlock()
	if c := p.reserve(k); c != nil {
		return c, nil
	}
	c, err := dial(ctx, call, http2)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := c.Reserve(); err != nil {
		c.Close()
		return nil, err
	}
	c.uses++
	p.conns = append(p.conns, c)
	return c, nil
}

func (p *pool) reserve(k key) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		limit := k.settings.MaxRequestsPerConnection
		if limit > 0 && c.uses >= limit || c.Err() != nil {
			continue
		}
		if c.Reserve() == nil {
			c.uses++
			return c
		}
	}
	return nil
}

// dial makes a connection of what the cluster dials; net/http sees clear text of the one protocol that was agreed.
func dial(ctx context.Context, call *forward.Call, http2 bool) (*upstream, error) {
	up, closed, err := call.Cluster.Dial(ctx, call.Host)
	if err != nil {
		return nil, err
	}
	conn := &counted{Conn: up.Conn, closed: closed}
	settings := call.Cluster.Settings
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{
		Protocols: protocols, DisableCompression: true, MaxResponseHeaderBytes: 60 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     int(min(settings.HTTP2.StreamWindow, 1<<20)),
			MaxReceiveBufferPerConnection: int(min(settings.HTTP2.ConnectionWindow, 2<<20)),
			SendPingTimeout:               settings.HTTP2.PingInterval, PingTimeout: settings.HTTP2.PingLimit,
			StrictMaxConcurrentRequests: true,
		},
	}
	client, err := transport.NewClientConn(ctx, "http", call.Host.Address)
	if err != nil {
		conn.Close()
		return nil, err
	}
	cluster := call.Cluster
	client.SetStateHook(func(c *http.ClientConn) {
		if c.Available() > 0 {
			cluster.Freed()
		}
	})
	now := time.Now()
	return &upstream{ClientConn: client, peer: up.Peer, opened: now, idle: now}, nil
}

// counted gives its place among the cluster's connections back when it is closed.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}

// sweep closes what is broken, idle for too long, used up, or no longer configured; the last two once nothing runs.
func (u *upstreams) sweep(v *forward.View, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, p := range u.pool {
		cluster := v.Cluster(k.settings.Name)
		wanted := cluster != nil && cluster.Settings == k.settings && usable(cluster, k.address)
		if p.sweep(k.settings, wanted, now) == 0 && !wanted {
			delete(u.pool, k)
		}
	}
}

// usable: the host exists and is not being drained.
func usable(c *forward.Cluster, address string) bool {
	if c.Set == nil {
		return false
	}
	for _, host := range c.Set.Hosts() {
		if host.Address == address {
			e, _ := host.Data.(*config.Endpoint)
			return e == nil || e.Health != config.Draining
		}
	}
	return false
}

func (p *pool) sweep(s *config.Settings, wanted bool, now time.Time) (left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.conns[:0]
	for _, c := range p.conns {
		if c.InFlight() > 0 && c.Err() == nil {
			c.idle = now
			kept = append(kept, c)
			continue
		}
		old := s.MaxConnectionDuration > 0 && now.Sub(c.opened) > s.MaxConnectionDuration
		used := s.MaxRequestsPerConnection > 0 && c.uses >= s.MaxRequestsPerConnection
		lazy := s.IdleTimeout > 0 && now.Sub(c.idle) > s.IdleTimeout
		if c.Err() != nil || !wanted || old || used || lazy {
			c.Close()
			continue
		}
		kept = append(kept, c)
	}
	clear(p.conns[len(kept):])
	p.conns = kept
	return len(kept)
}

func (u *upstreams) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.pool {
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.conns = nil
		p.mu.Unlock()
	}
	u.pool = nil
}
