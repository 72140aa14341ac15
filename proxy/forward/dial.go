package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/trust"
)

// ErrOverflow is returned by Dial when the cluster has all the connections that it may have (flag UO).
var ErrOverflow = errors.New("too many connections")

// Upstream is a connection to a host, verified if the cluster asks for TLS.
type Upstream struct {
	net.Conn        // *net.TCPConn or *tls.Conn; closing it ends its count
	Peer     string // SPIFFE ID; "" without TLS
	Protocol string // negotiated by ALPN; "" if none was
}

// Dial connects to a host of the cluster within its connect timeout, handshake included. Closed must be called once
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
	return up, sync.OnceFunc(connections.Release), nil
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

// connect returns a kept connection, or a new one.
func (c *Cluster) connect(ctx context.Context, call *Call, fresh bool) (*http1.Conn, error) {
	if !fresh {
		if conn := c.owner.pool.Get(poolKey{c.Settings, call.Host.Address}, call.now()); conn != nil {
			return conn, nil
		}
	}
	up, closed, err := c.Dial(ctx, call.Host)
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
}

// endpoint is the configuration behind a host.
func endpoint(h *balance.Host) *config.Endpoint {
	e, _ := h.Data.(*config.Endpoint)
	return e
}
