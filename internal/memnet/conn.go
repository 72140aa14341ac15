package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// buffered is how much one direction holds before writes wait.
const buffered = 256 << 10

// conn is one end of a connection.
type conn struct {
	network       *Network
	local, remote addr
	in, out       *pipe
}

func newPair(n *Network, client, server addr) (*conn, *conn) {
	up := &pipe{network: n, from: hostOf(string(client)), to: hostOf(string(server))}
	down := &pipe{network: n, from: up.to, to: up.from}
	return &conn{n, client, server, down, up}, &conn{n, server, client, up, down}
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// CloseWrite sends the end of the stream; reading goes on.
func (c *conn) CloseWrite() error {
	c.out.change(func(p *pipe) { p.ended = true })
	return nil
}

// Close sends the end of the stream and refuses what the peer still writes.
func (c *conn) Close() error {
	c.network.forget(c)
	c.out.change(func(p *pipe) { p.ended = true })
	c.in.change(func(p *pipe) { p.unread = true })
	return nil
}

// reset loses what is under way in both directions.
func (c *conn) reset() {
	c.network.forget(c)
	for _, p := range []*pipe{c.in, c.out} {
		p.change(func(p *pipe) { p.broken = true })
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.change(func(p *pipe) { p.readBy = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.change(func(p *pipe) { p.writeBy = t })
	return nil
}

// pipe is one direction.
type pipe struct {
	network  *Network
	from, to string

	mu              sync.Mutex // guards below
	segments        []segment
	size            int // of all segments
	readBy, writeBy time.Time
	ended           bool          // nothing more is written
	unread          bool          // nobody reads any more
	broken          bool          // reset
	changed         chan struct{} // closed at the next change; nil: nobody waits
}

// segment arrives at a time.
type segment struct {
	at   time.Time
	data []byte
}

func (p *pipe) change(f func(*pipe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
	p.signal()
}

func (p *pipe) signal() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// wait sleeps until a change, until t if that is not zero, or until a cut ends. It is called with mu held, which it
// lets go meanwhile.
func (p *pipe) wait(t time.Time, healed <-chan struct{}) {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	var timeout <-chan time.Time
	if !t.IsZero() {
		timer := time.NewTimer(time.Until(t))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-healed:
	case <-timeout:
	}
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case p.unread:
			return 0, net.ErrClosed
		case p.broken:
			return 0, syscall.ECONNRESET
		case past(p.readBy, now):
			return 0, os.ErrDeadlineExceeded
		}
		until := p.readBy
		cut, healed, _ := p.network.path(p.from, p.to)
		switch {
		case cut:
		case len(p.segments) == 0 && p.ended:
			return 0, io.EOF
		case len(p.segments) > 0 && !p.segments[0].at.After(now):
			return p.take(b), nil
		case len(p.segments) > 0 && (until.IsZero() || p.segments[0].at.Before(until)):
			until = p.segments[0].at
		}
		p.wait(until, healed)
	}
}

func (p *pipe) take(b []byte) int {
	first := &p.segments[0]
	n := copy(b, first.data)
	if first.data = first.data[n:]; len(first.data) == 0 {
		p.segments = p.segments[1:]
	}
	p.size -= n
	p.signal()
	return n
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		now := time.Now()
		switch {
		case p.ended:
			return written, net.ErrClosed
		case p.broken || p.unread:
			return written, syscall.ECONNRESET
		case past(p.writeBy, now):
			return written, os.ErrDeadlineExceeded
		}
		if n := min(len(b), buffered-p.size); n > 0 {
			p.put(b[:n], now)
			b, written = b[n:], written+n
		}
		if len(b) == 0 {
			return written, nil
		}
		p.wait(p.writeBy, nil)
	}
}

func (p *pipe) put(b []byte, now time.Time) {
	_, _, delay := p.network.path(p.from, p.to)
	p.segments = append(p.segments, segment{now.Add(delay), append([]byte(nil), b...)})
	p.size += len(b)
	p.signal()
}

func past(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }
