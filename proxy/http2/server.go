package http2

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/http2/upstream"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// Limits on a downstream connection.
const (
	streamWindow     = 64 << 10 // bytes
	connectionWindow = 1 << 20  // bytes
	frameSize        = 16 << 10 // bytes; the least that can be said, for a connection keeps a buffer of the largest frame
	resetBudget      = 500      // streams that a client may abandon on one connection before it is sent away
)

// Config of a Server.
type Config struct {
	Clusters *forward.Clusters
	Observer record.Observer // nil: nobody listens
	Own      string          // own SPIFFE ID, for records
	// MaxReplay is how much of a body is kept for another attempt, in bytes. 0: 64 KiB.
	MaxReplay int
	// GoAwayGrace is how long a drain still takes streams from clients that may not have heard of it: more than a round
	// trip to any of them. 0: 1 s.
	GoAwayGrace time.Duration
	Log         *slog.Logger // nil: discards
}

func (c *Config) validate() {
	if c.MaxReplay == 0 {
		c.MaxReplay = 64 << 10
	}
	if c.GoAwayGrace == 0 {
		c.GoAwayGrace = time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Server serves HTTP/2 connections and can be drained. Run must be called for idle upstream connections to go.
type Server struct {
	config    Config
	upstreams upstream.Pools

	telling sync.WaitGroup // those that say GOAWAY

	mu      sync.Mutex
	servers map[*http.Server]*queue // guarded by mu; one per connection
	until   context.Context         // guarded by mu; Drain's, nil before
	empty   chan struct{}           // guarded by mu; closed when servers is empty and somebody waits
}

// New returns a Server.
func New(c Config) *Server {
	c.validate()
	return &Server{config: c, servers: map[*http.Server]*queue{}}
}

// ServeConn serves a connection, whose TLS has been terminated, until it is done, and closes it. It implements the
// H2Handler of packages inbound and outbound.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn, c forward.Connection) {
	session := &session{server: s, ctx: ctx, conn: c, http: c.HTTP,
		downstream: forward.AddrPort(conn.RemoteAddr()), local: forward.AddrPort(conn.LocalAddr())}
	server := session.httpServer()
	q := &queue{conn: &closing{Conn: conn, closed: make(chan struct{})}, done: make(chan struct{})}
	defer s.enter(server, q)()
	defer s.leave(server)
	// A clear text server that knows HTTP/2 alone: TLS, where there is any, was terminated before.
	_ = server.Serve(q)
	<-q.conn.closed
	session.end()
}

func (s *session) httpServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: s, Protocols: protocols, ErrorLog: slog.NewLogLogger(s.server.config.Log.Handler(), slog.LevelDebug),
		MaxHeaderBytes: int(s.http.MaxHeaderKiB) << 10, IdleTimeout: s.http.IdleTimeout, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return s.ctx },
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: int(min(s.http.MaxConcurrentStreams, 1<<20)),
			MaxReadFrameSize:     frameSize, MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connectionWindow,
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: 30 * time.Second,
		},
	}
}

// enter takes a connection, during a drain too: its client may have sent a request with the handshake. The caller must
// call the function that it returns.
func (s *Server) enter(server *http.Server, q *queue) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers[server] = q
	if s.until == nil {
		return func() {}
	}
	s.sendOff(server, q)
	stop := context.AfterFunc(s.until, func() { _ = q.conn.Close() })
	return func() { stop() }
}

func (s *Server) leave(server *http.Server) {
	_ = server.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if final := s.servers[server].final; final != nil {
		final.Stop()
	}
	delete(s.servers, server)
	if len(s.servers) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Run looks after idle upstream connections until ctx ends, then closes all of them.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	defer s.upstreams.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			s.upstreams.Sweep(s.config.Clusters.View(), now)
		}
	}
}

// queue is a listener with one connection: net/http serves listeners only.
type queue struct {
	conn  *closing
	taken atomic.Bool
	once  sync.Once
	done  chan struct{}
	final *time.Timer // guarded by the Server's mu; nil: no drain
}

func (q *queue) Accept() (net.Conn, error) {
	if q.taken.CompareAndSwap(false, true) {
		return q.conn, nil
	}
	return nil, http.ErrServerClosed // Serve returns; the connection goes on
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.conn.LocalAddr() }
