package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/trust"
)

// ErrOverflow is returned by Dial when the cluster has all the connections that it may have (flag UO), and by Queue
// when too many requests wait for one. ErrWaited: no connection became free in time.
var (
	ErrOverflow = errors.New("too many connections")
	ErrWaited   = errors.New("no connection became free in time")
)

// Upstream is a connection to a host, verified if the cluster asks for TLS.
type Upstream struct {
	net.Conn        // *net.TCPConn or *tls.Conn; closing it ends its count
	Peer     string // SPIFFE ID; "" without TLS
	Protocol string // negotiated by ALPN; "" if none was
}

// Dial makes one attempt to connect to a host of the cluster, within its connect timeout, handshake included. Closed must be called once
// the connection is closed.
func (c *Cluster) Dial(ctx context.Context, host *balance.Host) (up Upstream, closed func(), err error) {
	if c.refused != nil {
		return up, nil, c.refused
	}
	connections := &c.Set.Breaker().Connections
	if !connections.Acquire() {
		return up, nil, ErrOverflow
	}
	ctx, cancel := context.WithTimeout(ctx, c.Settings.ConnectTimeout)
	defer cancel()
	if up, err = c.dial(ctx, host); err != nil {
		connections.Release()
		return up, nil, fmt.Errorf("host %s: %w", host.Address, err)
	}
	return up, sync.OnceFunc(func() {
		connections.Release()
		c.Freed()
	}), nil
}

// Freed lets the first request that waits for a connection try again.
func (c *Cluster) Freed() { c.Set.Breaker().Waiting.Wake() }

// Queue calls try, which wants a connection, until it returns something else than ErrOverflow. Between two tries it
// waits, as one of the cluster's pending requests, until a connection has become free; if there are too many of those
// it returns ErrOverflow, and when ctx ends, or until (zero: never) passes, ErrWaited.
func (c *Cluster) Queue(ctx context.Context, until time.Time, try func() error) error {
	breaker := c.Set.Breaker()
	if !breaker.Pending.Acquire() {
		return ErrOverflow
	}
	defer breaker.Pending.Release()
	w := breaker.Waiting.Join()
	defer w.Leave()
	var late <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		late = timer.C
	}
	for {
		if err := try(); !errors.Is(err, ErrOverflow) {
			return err
		}
		select {
		case <-w.C:
		case <-late:
			return ErrWaited
		case <-ctx.Done():
			return ErrWaited
		}
	}
}

func (c *Cluster) dial(ctx context.Context, host *balance.Host) (up Upstream, err error) {
	plain, err := c.owner.config.Dial(ctx, "tcp", host.Address)
	if err != nil {
		return up, err
	}
	if tcp, ok := plain.(*net.TCPConn); ok && c.Settings.KeepaliveIdle > 0 {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: c.Settings.KeepaliveIdle})
	}
	if c.TLS == nil {
		return Upstream{Conn: plain}, nil
	}
	secure := tls.Client(plain, c.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		plain.Close()
		return up, fmt.Errorf("tls: %w", err)
	}
	state := secure.ConnectionState()
	id, err := trust.PeerID(state)
	if err != nil {
		plain.Close()
		return up, fmt.Errorf("tls: %w", err)
	}
	return Upstream{Conn: secure, Peer: id.String(), Protocol: state.NegotiatedProtocol}, nil
}

// connect returns a kept connection, or a new one; if there are too many it waits for its turn.
func (c *Cluster) connect(ctx context.Context, call *Call, fresh bool) (conn *http1.Conn, err error) {
	if conn, err = c.tryConnect(ctx, call, fresh); !errors.Is(err, ErrOverflow) {
		return conn, err
	}
	return c.queueConnect(ctx, call, fresh)
}

// queueConnect is not part of connect because its closure would make every call's result escape.
func (c *Cluster) queueConnect(ctx context.Context, call *Call, fresh bool) (conn *http1.Conn, err error) {
	err = c.Queue(ctx, call.TryUntil(call.now()), func() (err error) {
		conn, err = c.tryConnect(ctx, call, fresh)
		return err
	})
	return conn, err
}

// tryConnect: an idle connection to another host gives way to a new one.
func (c *Cluster) tryConnect(ctx context.Context, call *Call, fresh bool) (*http1.Conn, error) {
	if !fresh {
		if conn := c.owner.pool.Get(poolKey{c.Settings, call.Host.Address}, call.now()); conn != nil {
			return conn, nil
		}
	}
	up, closed, err := c.Dial(ctx, call.Host)
	if errors.Is(err, ErrOverflow) && c.owner.pool.Evict(func(k poolKey) bool { return k.settings.Name == c.Name }) {
		up, closed, err = c.Dial(ctx, call.Host)
	}
	if err != nil {
		return nil, err
	}
	conn := http1.NewConn(up.Conn, c.owner.config.Buffers, 0)
	conn.Peer, conn.Closed = up.Peer, closed
	return conn, nil
}

// keep puts a connection back, unless it has served enough.
func (c *Cluster) keep(call *Call, conn *http1.Conn) {
	limit := c.Settings.MaxRequestsPerConnection
	if limit > 0 && conn.Uses >= int(limit) || c.Settings.MaxConnectionDuration > 0 && conn.Age(call.now()) > c.Settings.MaxConnectionDuration {
		conn.Release()
		return
	}
	c.owner.pool.Put(poolKey{c.Settings, call.Host.Address}, conn, call.now())
	c.Freed()
}

// endpoint is the configuration behind a host.
func endpoint(h *balance.Host) *config.Endpoint {
	e, _ := h.Data.(*config.Endpoint)
	return e
}
