package forward

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// Config configures a Forwarder.
type Config struct {
	Clusters *Clusters       // never nil
	Observer record.Observer // nil: nobody listens
	Buffers  *http1.Buffers  // nil: own ones
	Pipes    *splice.Pipes   // nil: TCP goes through buffers
	HTTP2    Carrier         // nil: requests to clusters that speak HTTP/2 only are refused
	Own      string          // own SPIFFE ID, for records
	Log      *slog.Logger    // nil: discarded
}

func (c *Config) validate() {
	if c.Buffers == nil {
		c.Buffers = &http1.Buffers{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Forwarder serves connections whose listener, peer and protocol are known.
type Forwarder struct {
	config Config
	server *http1.Server
}

// Connection is what is known of an accepted connection.
type Connection struct {
	Reporter record.Reporter
	Listener *config.Listener
	HTTP     *config.HTTP // nil for TCP
	Peer     authz.Peer   // what authorisation looks at
	// ClientCert is the x-forwarded-client-cert of the peer; "" without TLS.
	ClientCert string
}

// Refresh moves c to the listener's configuration as it is now: a policy that arrives while a connection is kept open
// holds for its next request. It returns false if the connection would not be taken so any more, because its listener
// or chain is gone or asks for other TLS: the request is served, and has to be the connection's last.
func (c *Connection) Refresh(now *config.Config) (current bool) {
	latest := now.Listeners[c.Listener.Name]
	if latest == c.Listener || latest == nil {
		return latest != nil
	}
	old, chain := sameChain(c.Listener, latest, c.HTTP)
	if chain == nil || chain.HTTP == nil {
		return false
	}
	c.Listener, c.HTTP = latest, chain.HTTP
	return sameTLS(old.TLS, chain.TLS)
}

// sameChain is the chain of http in old, and the one that has its place in latest; nil if there is none.
func sameChain(old, latest *config.Listener, http *config.HTTP) (was, is *config.FilterChain) {
	was = old.Default
	if i := slices.IndexFunc(old.Chains, func(c *config.FilterChain) bool { return c.HTTP == http }); i >= 0 {
		was = old.Chains[i]
	}
	if was == nil || was.HTTP != http {
		return nil, nil
	}
	return was, latest.Successor(old, was)
}

// sameTLS tells whether a handshake that one of them accepted is as good under the other.
func sameTLS(a, b *config.DownstreamTLS) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.RequireClient == b.RequireClient && slices.Equal(a.SANs, b.SANs)
}

// New returns a Forwarder.
func New(c Config) *Forwarder {
	c.validate()
	return &Forwarder{config: c, server: http1.NewServer(http1.ServerConfig{Buffers: c.Buffers})}
}

// Clusters returns what the Forwarder forwards to.
func (f *Forwarder) Clusters() *Clusters { return f.config.Clusters }

// Observer returns who is told of finished exchanges, or nil.
func (f *Forwarder) Observer() record.Observer { return f.config.Observer }

// ServeHTTP1 serves an HTTP/1.1 connection until it is done, and closes it. first was read from it already; at most
// 4 KiB.
func (f *Forwarder) ServeHTTP1(ctx context.Context, conn net.Conn, first []byte, c Connection) {
	limits := http1.Limits{Idle: c.HTTP.IdleTimeout, Head: c.HTTP.HeadersTimeout, MaxHead: int(c.HTTP.MaxHeaderKiB) << 10}
	f.server.ServeConn(ctx, conn, first, limits, newSession(f, conn, c))
}

// Drain makes every HTTP/1.1 response from now on the last of its connection.
func (f *Forwarder) Drain() { f.server.Drain() }

// CloseIdle closes idle HTTP/1.1 connections, now and from now on.
func (f *Forwarder) CloseIdle() { f.server.CloseIdle() }

// Wait returns when all HTTP/1.1 connections have ended; when ctx ends it closes those that are left.
func (f *Forwarder) Wait(ctx context.Context) { f.server.Wait(ctx) }

// record begins the records of a connection.
func (f *Forwarder) record(conn net.Conn, c *Connection) record.Record {
	r := record.Record{
		Reporter: c.Reporter, Listener: c.Listener.Name, GRPC: -1, Own: f.config.Own, ServerName: c.Peer.ServerName,
		Downstream: AddrPort(conn.RemoteAddr()), LocalAddress: AddrPort(conn.LocalAddr()),
	}
	if c.Reporter == record.Destination {
		r.Peer, r.MutualTLS = c.Peer.ID, c.Peer.ID != ""
	}
	return r
}

func (f *Forwarder) observe(r *record.Record) {
	if f.config.Observer != nil {
		f.config.Observer.Observe(r)
	}
}

// AddrPort is a TCP address's, or invalid.
func AddrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		p := tcp.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}
