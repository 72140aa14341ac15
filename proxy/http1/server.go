package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// Handler answers the requests of one connection, one at a time.
type Handler interface {
	// Serve answers the request, by Reply or Relay; if it does neither the connection is closed.
	Serve(ctx context.Context, x *Exchange)
	// Refused is told of a request that could not be read and how it was answered.
	Refused(status int, err error)
}

// ServerConfig configures a Server.
type ServerConfig struct {
	Buffers *Buffers // nil: own ones
}

// Limits of a connection.
type Limits struct {
	Idle    time.Duration // until a request begins; 0: 1 h
	Head    time.Duration // from its first byte to the end of its head; 0: 10 s
	MaxHead int           // of a head, in bytes; 0: message.DefaultMaxHead
}

func (t Limits) orDefault() Limits {
	if t.Idle == 0 {
		t.Idle = time.Hour
	}
	if t.Head == 0 {
		t.Head = 10 * time.Second
	}
	return t
}

func (c *ServerConfig) validate() {
	if c.Buffers == nil {
		c.Buffers = &Buffers{}
	}
}

// Server serves connections and can be drained.
type Server struct {
	config ServerConfig
	// draining: every response ends its connection. closing: so does every idle moment.
	draining, closing atomic.Bool

	mu    sync.Mutex // guards conns, and the read deadlines of idle ones while closing
	conns map[*serverConn]struct{}
	empty chan struct{} // closed when conns is empty and somebody waits
}

type serverConn struct {
	*Conn
	limits   Limits
	idle     atomic.Int64 // since when, in Unix nanoseconds; 0: it is not
	used     atomic.Bool  // a request has come
	exchange Exchange
}

// NewServer returns a Server.
func NewServer(config ServerConfig) *Server {
	config.validate()
	return &Server{config: config, conns: map[*serverConn]struct{}{}}
}

// ServeConn serves nc until it ends and closes it. first are bytes that were read from nc already, at most 4 KiB.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, first []byte, l Limits, h Handler) {
	c := &serverConn{Conn: NewConn(nc, s.config.Buffers, l.MaxHead), limits: l.orDefault()}
	c.w = copy(c.buf, first)
	c.headTimeout = c.limits.Head
	c.exchange.client, c.exchange.server = c.Conn, s
	s.enter(c)
	defer s.leave(c)
	for s.serveOne(ctx, c, h) {
	}
	c.closeGently()
}

func (s *Server) enter(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *Server) leave(c *serverConn) {
	c.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

func (s *Server) serveOne(ctx context.Context, c *serverConn, h Handler) bool {
	if c.r == c.w && !s.await(c) {
		return false
	}
	request, err := c.ReadRequest()
	if err != nil {
		s.refuse(c, h, err)
		return false
	}
	x := &c.exchange
	x.begin(request)
	h.Serve(ctx, x)
	return x.finish()
}

// await waits for the first byte of a request.
func (s *Server) await(c *serverConn) bool {
	now := time.Now()
	c.readWithin(now, c.limits.Idle)
	c.idle.Store(now.UnixNano())
	if s.closing.Load() {
		if c.used.Load() {
			return arrived(c.Conn)
		}
		s.closeLater(c, now.UnixNano())
	}
	err := c.fill()
	c.used.Store(true)
	c.idle.Store(0)
	if s.closing.Load() {
		s.mu.Lock() // CloseIdle has set its deadlines
		c.readUntil(time.Now().Add(c.limits.Head))
		s.mu.Unlock()
		return err == nil || arrived(c.Conn)
	}
	return err == nil
}

// arrived tells whether a request came in the moment in which its connection was to be closed.
func arrived(c *Conn) bool {
	n, ok := pending(c.Conn)
	return ok && n > 0
}

func (s *Server) refuse(c *serverConn, h Handler, err error) {
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, message.ErrTooLarge):
		status = http.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, message.ErrMalformed):
	case isTimeout(err) && c.w > c.r:
		status = http.StatusRequestTimeout
	default:
		return // the connection ended
	}
	refuse(c.Conn, status)
	h.Refused(status, err)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// closeGently lets the last response arrive before unread bytes make the kernel reset the connection.
func (c *serverConn) closeGently() {
	if c.exchange.Truncated || c.broken != nil {
		return
	}
	closeWrite(c.Conn.Conn)
	_ = c.Conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, c.Conn.Conn, 256<<10)
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
		return
	}
	c.Close()
}

// Drain makes every response from now on the last of its connection.
func (s *Server) Drain() { s.draining.Store(true) }

// quiet is how long a connection must have been idle before a drain closes it: one that was just in use may carry the
// next request already, which would be lost; a client looks at one that was not before it uses it again.
const quiet = 25 * time.Millisecond

// CloseIdle closes what is idle, now and from now on. Requests in flight finish.
func (s *Server) CloseIdle() {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	for c := range s.conns {
		if since := c.idle.Load(); since != 0 {
			s.closeLater(c, since)
		}
	}
}

// closeLater ends c unless a request comes in time. One that was accepted and carries its first request soon is one
// whose client knows nothing of the drain.
func (s *Server) closeLater(c *serverConn, since int64) {
	grace := quiet
	if !c.used.Load() {
		grace = 20 * quiet
	}
	_ = c.Conn.SetReadDeadline(time.Unix(0, since).Add(grace))
}

// Wait returns when no connection is left; when ctx ends it closes those that are.
func (s *Server) Wait(ctx context.Context) {
	s.mu.Lock()
	if len(s.conns) == 0 {
		s.mu.Unlock()
		return
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
		s.abort()
		<-empty
	}
}

func (s *Server) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Conn.Conn.Close()
	}
}
