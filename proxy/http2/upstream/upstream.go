package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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

// Pools are the connections to hosts. The zero value is ready; it must not be copied.
type Pools struct {
	mu     sync.Mutex
	pool   map[key]*pool // guarded by mu
	closed bool          // guarded by mu; nothing is kept any more
}

// pool holds the connections to one host.
type pool struct {
	mu      sync.Mutex
	conns   []*Conn  // guarded by mu
	dialing *dialing // guarded by mu; nil: nobody dials
	gone    bool     // guarded by mu; it is not in Pools any more
}

// dialing is an attempt to connect, on whose outcome a burst of requests waits.
type dialing struct {
	done chan struct{} // closed when err is set
	err  error         // nil: there is a connection, or whoever dialled gave up
}

// Conn is one connection. Each Connect reserves one request on it, which is sent with RoundTrip, or given up with
// Release.
type Conn struct {
	*http.ClientConn
	Peer   string      // SPIFFE ID; "" without TLS
	Used   atomic.Bool // a request was answered on it, or failed
	conn   *counted
	uses   uint32    // guarded by the pool's mu
	opened time.Time // guarded likewise, as is idle
	idle   time.Time // when it was last seen with nothing in flight
}

// get returns the pool of a key; nil after close.
func (u *Pools) get(k key) *pool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
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

// Connect returns a connection to the call's host on which a request is reserved; if there are too many it waits for its
// turn, until a time; zero: as long as ctx. The error is [forward.ErrWaited] when the time was over first,
// [forward.ErrOverflow] when too many wait, or what dialling ended with.
func (u *Pools) Connect(ctx context.Context, call *forward.Call, http2 bool, until time.Time) (c *Conn, err error) {
	if !until.IsZero() {
		limited, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		ctx = limited
		defer func() {
			if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
				err = forward.ErrWaited
			}
		}()
	}
	if c, err = u.tryConnect(ctx, call, http2); !errors.Is(err, forward.ErrOverflow) {
		return c, err
	}
	err = call.Cluster.Queue(ctx, until, func() (err error) {
		c, err = u.tryConnect(ctx, call, http2)
		return err
	})
	return c, err
}

// tryConnect: of the requests that find no connection to a host one dials, and the others wait for what comes of it.
func (u *Pools) tryConnect(ctx context.Context, call *forward.Call, http2 bool) (*Conn, error) {
	k := key{call.Cluster.Settings, call.Host.Address, http2}
	for {
		p := u.get(k)
		if p == nil {
			return nil, net.ErrClosed
		}
		c, d, first := p.reserve(k)
		switch {
		case c != nil:
			return c, nil
		case first:
			return p.dial(ctx, call, d, http2)
		case d == nil:
			continue // p was given up meanwhile
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, forward.ErrWaited
		}
	}
}

// reserve returns a connection with a place reserved, or who dials; first: the caller has to. Neither: p is gone.
func (p *pool) reserve(k key) (c *Conn, d *dialing, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil, nil, false
	}
	for _, c := range p.conns {
		limit := k.settings.MaxRequestsPerConnection
		if limit > 0 && c.uses >= limit || c.Err() != nil {
			continue
		}
		if c.Reserve() == nil {
			c.uses++
			return c, nil, false
		}
	}
	if p.dialing != nil {
		return nil, p.dialing, false
	}
	p.dialing = &dialing{done: make(chan struct{})}
	return nil, p.dialing, true
}

// dial connects for those that wait, too. If it is the caller who gives up, one of them dials next.
func (p *pool) dial(ctx context.Context, call *forward.Call, d *dialing, http2 bool) (*Conn, error) {
	c, err := dial(ctx, call, http2)
	if err == nil {
		err = c.Reserve()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(d.done)
	p.dialing = nil
	if err == nil && p.gone {
		err = net.ErrClosed
	}
	if err != nil && c != nil {
		c.Close()
	}
	if err != nil {
		if ctx.Err() == nil {
			d.err = err
		}
		return nil, err
	}
	c.uses++
	p.conns = append(p.conns, c)
	return c, nil
}

// dial makes a connection of what the cluster dials; net/http sees clear text of the one protocol that was agreed.
func dial(ctx context.Context, call *forward.Call, http2 bool) (*Conn, error) {
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
	return &Conn{ClientConn: client, Peer: up.Peer, conn: conn, opened: now, idle: now}, nil
}

// counted gives its place among the cluster's connections back when it is closed, and ends an upload.
type counted struct {
	net.Conn
	closed func()

	mu     sync.Mutex
	over   bool      // guarded by mu
	upload io.Closer // guarded by mu; nil: none
}

// Uploads has a request's body closed when the connection is: over HTTP/1.1 net/http does not tell that the response
// failed before the body's last read is over, which may wait for the client. Call what it returns when that is over.
func (u *Conn) Uploads(body io.Closer) (end func()) {
	c := u.conn
	c.mu.Lock()
	c.upload = body
	over := c.over
	c.mu.Unlock()
	if over {
		_ = body.Close()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.upload == body {
			c.upload = nil
		}
	}
}

// Close implements net.Conn.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.closed()
	c.mu.Lock()
	c.over = true
	body := c.upload
	c.mu.Unlock()
	if body != nil {
		_ = body.Close()
	}
	return err
}

// Sweep closes what is broken, idle for too long, used up, or no longer configured; the last two once nothing runs.
func (u *Pools) Sweep(v *forward.View, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, p := range u.pool {
		cluster := v.Cluster(k.settings.Name)
		wanted := cluster != nil && cluster.Settings == k.settings && usable(cluster, k.address)
		if p.sweep(k.settings, wanted, now) {
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

// sweep tells whether p is of no more use.
func (p *pool) sweep(s *config.Settings, wanted bool, now time.Time) (gone bool) {
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
	p.gone = len(kept) == 0 && p.dialing == nil && !wanted
	return p.gone
}

// Close closes every connection, with the requests on it; Connect fails with net.ErrClosed from then on.
func (u *Pools) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.pool {
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.conns, p.gone = nil, true
		p.mu.Unlock()
	}
	u.pool, u.closed = nil, true
}
