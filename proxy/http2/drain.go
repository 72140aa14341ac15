package http2

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"sync"
	"time"
)

// A drain says GOAWAY twice (RFC 9113, section 6.8). The first names no stream: the client begins no other, but those
// that it began before it heard are served. net/http only says the second, naming the last stream that it has seen by
// then, and closes connections that have none; so the first is written here, between two of its frames.

// Drain has clients leave: it says GOAWAY on every connection, and on those that still come. Streams that run, or that
// a client begins before it knows, finish. When ctx ends everything is cut.
func (s *Server) Drain(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until != nil {
		return
	}
	s.until = ctx
	for server, q := range s.servers {
		s.sendOff(server, q)
	}
}

// sendOff says the first GOAWAY, and the second when the client has heard it. Called with mu held.
func (s *Server) sendOff(server *http.Server, q *queue) {
	ended, cancel := context.WithCancel(s.until)
	cancel() // Shutdown says GOAWAY at once and would then wait, which Wait does
	s.telling.Go(q.conn.goAway)
	grace := s.config.GoAwayGrace
	q.final = time.AfterFunc(grace, func() {
		if q.conn.saidFor() >= grace {
			_ = server.Shutdown(ended)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.servers[server] == q { // the connection had not begun
			q.final.Reset(grace)
		}
	})
}

// Wait returns when no connection is left; when ctx ends it closes those that are.
func (s *Server) Wait(ctx context.Context) {
	defer s.telling.Wait()
	s.mu.Lock()
	if len(s.servers) == 0 {
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
		s.mu.Lock()
		for server, q := range s.servers {
			_ = server.Close()
			_ = q.conn.Close()
		}
		s.mu.Unlock()
		<-empty
	}
}

// closing tells when it is closed, and hides what is below: net/http must not see that it may be TLS. It follows the
// frames that are written, and can say GOAWAY between two of them.
type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}

	mu      sync.Mutex // held while writing
	head    [frameHead]byte
	have    int  // bytes of the head
	left    int  // bytes of the frame's payload
	written bool // a frame; the first must be SETTINGS
	leaving bool // GOAWAY is wanted
	said    time.Time
}

const frameHead = 9 // bytes (RFC 9113, section 4.1)

// goAwayAll is GOAWAY, NO_ERROR, with the highest possible stream.
var goAwayAll = []byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}

func (c *closing) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(p)
	c.follow(p[:n])
	if err == nil {
		err = c.speak()
	}
	return n, err
}

// goAway waits for a write that runs; that says it then.
func (c *closing) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	_ = c.speak() // the next write fails too
}

func (c *closing) speak() error {
	between := c.written && c.have == 0 && c.left == 0
	if !c.leaving || !c.said.IsZero() || !between {
		return nil
	}
	c.said = time.Now()
	_, err := c.Conn.Write(goAwayAll)
	return err
}

func (c *closing) follow(p []byte) {
	for len(p) > 0 {
		n := min(c.left, len(p))
		c.left -= n
		p = p[n:]
		if c.left > 0 || len(p) == 0 {
			return
		}
		n = copy(c.head[c.have:], p)
		p = p[n:]
		if c.have += n; c.have == frameHead {
			c.have, c.written = 0, true
			c.left = int(binary.BigEndian.Uint32(c.head[:]) >> 8)
		}
	}
}

// saidFor is how long ago GOAWAY was said, or 0.
func (c *closing) saidFor() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said.IsZero() {
		return 0
	}
	return time.Since(c.said)
}

func (c *closing) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}
