package outbound

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/periplus-mesh/periplus/internal/sni"
	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// H2Handler serves an HTTP/2 connection until it is done, and closes it.
type H2Handler interface {
	ServeConn(ctx context.Context, conn net.Conn, c forward.Connection)
}

// Config configures an Outbound.
type Config struct {
	Forwarder *forward.Forwarder // never nil
	H2        H2Handler          // nil: HTTP/2 is refused
}

// Outbound serves the connections of outbound listeners.
type Outbound struct {
	config Config

	mu      sync.Mutex
	silent  map[net.Conn]struct{} // guarded by mu; have said nothing yet, so nobody knows what they speak
	closing bool                  // guarded by mu
}

// New returns an Outbound.
func New(c Config) *Outbound { return &Outbound{config: c, silent: map[net.Conn]struct{}{}} }

// soon is how long a client that has connected before a drain may take to say something.
const soon = 500 * time.Millisecond

// undecided is how long the rest of HTTP/2's preface may take, as long as the head of a request over HTTP/1.1.
const undecided = 10 * time.Second

// CloseIdle ends connections that have said nothing yet and soon do not, now and from now on.
func (o *Outbound) CloseIdle() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
	for conn := range o.silent {
		_ = conn.SetReadDeadline(time.Now().Add(soon))
	}
}

// ServeConn serves a connection that l accepted until it is done, and closes it.
func (o *Outbound) ServeConn(ctx context.Context, conn net.Conn, l *config.Listener) {
	chain := l.Chain(l.Address.Port(), "", false, nil)
	c := forward.Connection{Reporter: record.Source, Listener: l}
	c.Peer.Source, c.Peer.Destination = forward.AddrPort(conn.RemoteAddr()).Addr(), forward.AddrPort(conn.LocalAddr())
	if chain == nil {
		conn.Close()
		return
	}
	permit, _ := authz.Connection(chain.RBAC, &c.Peer)
	switch {
	case !permit.Granted():
		conn.Close()
	case chain.HTTP != nil:
		c.HTTP = chain.HTTP
		o.serveHTTP(ctx, conn, c)
	case chain.TCP != nil:
		o.config.Forwarder.ServeTCP(ctx, conn, permit, c, chain.TCP)
	default:
		conn.Close()
	}
}

func (o *Outbound) serveHTTP(ctx context.Context, conn net.Conn, c forward.Connection) {
	o.await(conn, c.HTTP.IdleTimeout)
	first, err := peek(conn)
	o.heard(conn)
	isH2 := bytes.HasPrefix(first, preface)
	switch {
	case err != nil, isH2 && (o.config.H2 == nil || c.HTTP.Codec == config.HTTP1), !isH2 && c.HTTP.Codec == config.HTTP2:
		conn.Close()
	case isH2:
		o.config.H2.ServeConn(ctx, sni.Replay(conn, first), c)
	default:
		o.config.Forwarder.ServeHTTP1(ctx, conn, first, c)
	}
}

// preface is the beginning of HTTP/2's (RFC 9113, section 3.4); no HTTP/1.1 request begins so.
var preface = []byte("PRI * HTTP/2.0")

// await sets the deadline of the first bytes; 0: 1 h.
func (o *Outbound) await(conn net.Conn, idle time.Duration) {
	if idle == 0 {
		idle = time.Hour
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		idle = soon
	}
	o.silent[conn] = struct{}{}
	_ = conn.SetReadDeadline(time.Now().Add(idle))
}

func (o *Outbound) heard(conn net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.silent, conn)
	_ = conn.SetReadDeadline(time.Time{})
}

// peek reads the first bytes, enough to tell HTTP/2 from HTTP/1.1.
func peek(conn net.Conn) ([]byte, error) {
	buf := make([]byte, 0, 1024)
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
		if len(buf) >= len(preface) || !bytes.HasPrefix(preface, buf) {
			return buf, nil
		}
		if len(buf) == n {
			_ = conn.SetReadDeadline(time.Now().Add(undecided))
		}
	}
}
