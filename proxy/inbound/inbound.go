package inbound

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/sni"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/trust"
)

// H2Handler serves an HTTP/2 connection until it is done, and closes it.
type H2Handler interface {
	ServeConn(ctx context.Context, conn net.Conn, c forward.Connection)
}

// Config configures an Inbound.
type Config struct {
	Forwarder *forward.Forwarder // never nil
	Source    trust.Source       // own identity; nil refuses every chain with TLS
	H2        H2Handler          // nil: h2 is not offered
	// Current is the configuration that listeners are of; nil: a connection is only asked about when it begins. See
	// [Inbound.Follow].
	Current *watch.Value[*config.Config]
	// HandshakeTimeout bounds the ClientHello and the handshake; 0: 10 s.
	HandshakeTimeout time.Duration
	Log              *slog.Logger // nil: discarded
}

func (c *Config) validate() {
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Inbound serves the connections of inbound listeners.
type Inbound struct {
	config      Config
	connections connections

	mu   sync.Mutex // guards made
	made map[*config.DownstreamTLS]*tls.Config
}

// New returns an Inbound.
func New(c Config) *Inbound {
	c.validate()
	return &Inbound{config: c, made: map[*config.DownstreamTLS]*tls.Config{}}
}

// ServeConn serves a connection that l accepted until it is done, and closes it.
func (i *Inbound) ServeConn(ctx context.Context, conn net.Conn, l *config.Listener) {
	c := forward.Connection{Reporter: record.Destination, Listener: l}
	c.Peer.Source, c.Peer.Destination = forward.AddrPort(conn.RemoteAddr()).Addr(), forward.AddrPort(conn.LocalAddr())
	accepted := conn
	_ = conn.SetDeadline(time.Now().Add(i.config.HandshakeTimeout))
	conn, chain, err := i.choose(conn, l)
	if err == nil && chain.TLS != nil {
		conn, err = i.handshake(ctx, conn, chain.TLS, &c)
	}
	if err != nil {
		i.config.Log.Debug("inbound refused", "listener", l.Name, "peer", c.Peer.Source, "err", err)
		conn.Close()
		return
	}
	ctx, end := i.begin(ctx, accepted, chain, c)
	defer end()
	if ctx.Err() != nil {
		conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	i.serve(ctx, conn, chain, c)
}

// choose finds the filter chain, looking at the ClientHello if there is one and somebody cares.
func (i *Inbound) choose(conn net.Conn, l *config.Listener) (net.Conn, *config.FilterChain, error) {
	name, protocols, isTLS := "", []string(nil), false
	if l.TLSInspector {
		var first []byte
		var err error
		if conn, name, protocols, isTLS, first, err = inspect(conn); err != nil {
			return conn, nil, err
		}
		conn = sni.Replay(conn, first)
	}
	chain := l.Chain(l.Address.Port(), name, isTLS, protocols)
	switch {
	case chain == nil:
		return conn, nil, fmt.Errorf("no filter chain for %q", name)
	case l.TLSInspector && isTLS != (chain.TLS != nil) && chain.TCP == nil:
		return conn, nil, fmt.Errorf("filter chain %q: tls is %v", chain.Name, isTLS)
	}
	return conn, chain, nil
}

// inspect reads what the client sends first; plain text is no error.
func inspect(conn net.Conn) (_ net.Conn, name string, protocols []string, isTLS bool, first []byte, err error) {
	hello, first, err := sni.Peek(conn)
	switch {
	case err == nil:
		return conn, strings.ToLower(hello.ServerName), hello.Protocols(), true, first, nil
	case len(first) > 0 && first[0] != recordHandshake:
		return conn, "", nil, false, first, nil
	}
	return conn, "", nil, false, nil, err
}

// recordHandshake is the first byte of TLS (RFC 8446, section 5.1).
const recordHandshake = 22

func (i *Inbound) handshake(ctx context.Context, conn net.Conn, t *config.DownstreamTLS, c *forward.Connection) (net.Conn, error) {
	settings, err := i.serverTLS(t)
	if err != nil {
		return conn, err
	}
	secure := tls.Server(conn, settings)
	if err := secure.HandshakeContext(ctx); err != nil {
		return conn, fmt.Errorf("tls: %w", err)
	}
	state := secure.ConnectionState()
	c.Peer.TLS, c.Peer.ServerName = true, strings.ToLower(state.ServerName)
	id, err := trust.PeerID(state)
	if err != nil {
		if t.RequireClient {
			return conn, fmt.Errorf("tls: %w", err)
		}
		return secure, nil
	}
	c.Peer.ID = id.String()
	material, _ := i.config.Source.Get()
	c.ClientCert = forwardedCert(material.ID.String(), c.Peer.ID, state.PeerCertificates[0].Raw)
	return secure, nil
}

// forwardedCert is x-forwarded-client-cert as Envoy writes it.
func forwardedCert(own, peer string, certificate []byte) string {
	hash := sha256.Sum256(certificate)
	return "By=" + own + ";Hash=" + hex.EncodeToString(hash[:]) + `;Subject="";URI=` + peer
}

// serverTLS makes one TLS configuration for each version of a chain's: session tickets live in it.
func (i *Inbound) serverTLS(t *config.DownstreamTLS) (*tls.Config, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if made := i.made[t]; made != nil {
		return made, nil
	}
	if i.config.Source == nil {
		return nil, fmt.Errorf("tls: the proxy has no identity")
	}
	authorize, err := authorizer(t.SANs)
	if err != nil {
		return nil, err
	}
	made := trust.OptionalClientConfig(i.config.Source, authorize)
	if t.RequireClient {
		made = trust.ServerConfig(i.config.Source, authorize)
	}
	made.NextProtos = i.offered(t.ALPN)
	if len(i.made) > maxMade {
		clear(i.made)
	}
	i.made[t] = made
	return made, nil
}

// maxMade bounds what old configurations leave behind.
const maxMade = 256

func authorizer(sans []string) (trust.Authorizer, error) {
	if len(sans) == 0 {
		return trust.AuthorizeAny, nil
	}
	ids := make([]spiffeid.ID, 0, len(sans))
	for _, san := range sans {
		id, err := spiffeid.FromString(san)
		if err != nil {
			return nil, fmt.Errorf("tls: san %q: %w", san, err)
		}
		ids = append(ids, id)
	}
	return trust.AuthorizeOneOf(ids...), nil
}

// offered leaves out h2 if nobody serves it.
func (i *Inbound) offered(protocols []string) []string {
	out := make([]string, 0, len(protocols))
	for _, p := range protocols {
		if p != "h2" || i.config.H2 != nil {
			out = append(out, p)
		}
	}
	return out
}

func (i *Inbound) serve(ctx context.Context, conn net.Conn, chain *config.FilterChain, c forward.Connection) {
	permit, policy := authz.Connection(chain.RBAC, &c.Peer)
	c.HTTP = chain.HTTP
	switch {
	case !permit.Granted():
		i.config.Log.Debug("inbound denied", "listener", c.Listener.Name, "peer", c.Peer.ID, "policy", policy)
		conn.Close()
	case chain.TCP != nil:
		i.config.Forwarder.ServeTCP(ctx, conn, permit, c, chain.TCP)
	case chain.HTTP == nil:
		conn.Close()
	default:
		i.serveHTTP(ctx, conn, c)
	}
}

func (i *Inbound) serveHTTP(ctx context.Context, conn net.Conn, c forward.Connection) {
	isH2 := c.HTTP.Codec == config.HTTP2
	if secure, ok := conn.(*tls.Conn); ok && !isH2 {
		isH2 = secure.ConnectionState().NegotiatedProtocol == "h2"
	}
	switch {
	case !isH2:
		i.config.Forwarder.ServeHTTP1(ctx, conn, nil, c)
	case i.config.H2 == nil:
		conn.Close()
	default:
		i.config.H2.ServeConn(ctx, conn, c)
	}
}
