package splice

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Config says how a pair is copied.
type Config struct {
	// Pipes are shared by all pairs of a process. Nil: buffers are used, also between TCP connections.
	Pipes *Pipes
	// IdleTimeout without a byte in either direction ends the pair. Zero: never.
	IdleTimeout time.Duration
	// Sent counts bytes from the first to the second connection, Received the others, as they pass. They may be
	// shared by many pairs. Nil: not counted.
	Sent, Received *atomic.Int64
}

// Reason is why a pair ended.
type Reason string

// The reasons.
const (
	Closed    Reason = "closed"    // both sides sent everything and closed
	Reset     Reason = "reset"     // one side reset, or vanished; the other was reset
	Idle      Reason = "idle"      // IdleTimeout; both sides were closed
	Cancelled Reason = "cancelled" // ctx ended; both sides were closed
)

// Run copies until both directions have ended or ctx ends. It closes both connections. The error explains Reset and
// is nil otherwise.
func Run(ctx context.Context, a, b net.Conn, c Config) (Reason, error) {
	p := &pair{a: a, b: b, idle: c.IdleTimeout, start: time.Now()}
	defer p.watch(ctx)()
	up := make(chan struct{})
	go func() {
		defer close(up)
		p.direction(b, a, c.Pipes, c.Sent)
	}()
	p.direction(a, b, c.Pipes, c.Received)
	<-up
	p.end(outcome{reason: Closed})
	ended := p.ended.Load()
	return ended.reason, ended.err
}

// pair is two connections that end together, for the first reason that somebody finds.
type pair struct {
	a, b  net.Conn
	idle  time.Duration
	start time.Time
	last  atomic.Int64 // since start, nanoseconds; when a byte moved
	ended atomic.Pointer[outcome]

	copied atomic.Int32 // directions that came to their end
}

type outcome struct {
	reason Reason
	err    error
}

// watch ends the pair with ctx, and when it was idle. The caller must call the function that it returns.
func (p *pair) watch(ctx context.Context) (stop func()) {
	stopContext := context.AfterFunc(ctx, func() { p.end(outcome{reason: Cancelled}) })
	if p.idle == 0 {
		return func() { stopContext() }
	}
	var timer atomic.Pointer[time.Timer]
	check := func() {
		left := time.Duration(p.last.Load()) + p.idle - time.Since(p.start)
		if left > 0 {
			if p.ended.Load() == nil {
				timer.Load().Reset(left)
			}
			return
		}
		p.end(outcome{reason: Idle})
	}
	timer.Store(time.AfterFunc(math.MaxInt64, check)) // known before it can fire
	timer.Load().Reset(p.idle)
	return func() {
		stopContext()
		timer.Load().Stop()
	}
}

// end closes both connections, once.
func (p *pair) end(o outcome) {
	if !p.ended.CompareAndSwap(nil, &o) {
		return
	}
	for _, conn := range []net.Conn{p.a, p.b} {
		if tcp, ok := conn.(interface{ SetLinger(int) error }); ok && o.reason == Reset {
			_ = tcp.SetLinger(0) // closing then sends RST: the peer must not take what it has for the whole
		}
		_ = conn.Close()
	}
}

// moved notes that n bytes have passed.
func (p *pair) moved(n int64, counter *atomic.Int64) {
	if counter != nil {
		counter.Add(n)
	}
	if p.idle != 0 {
		p.last.Store(int64(time.Since(p.start)))
	}
}

// direction copies src to dst, then half-closes dst, unless both directions are done: closing says the same. An error
// ends the pair.
func (p *pair) direction(dst, src net.Conn, pipes *Pipes, counter *atomic.Int64) {
	err := p.copy(dst, src, pipes, counter)
	if err == nil && p.copied.Add(1) < 2 {
		err = closeWrite(dst)
	}
	if err != nil {
		p.end(outcome{Reset, err})
	}
}

// errNoHalfClose is never seen outside: the pair has ended then.
var errNoHalfClose = errors.New("connection has no half-close")

// closeWrite of a connection whose peer has closed already is no error: the other direction ends by itself.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errNoHalfClose
	}
	if err := half.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	return nil
}

func (p *pair) copy(dst, src net.Conn, pipes *Pipes, counter *atomic.Int64) error {
	to, toTCP := inKernel(dst)
	from, fromTCP := inKernel(src)
	if pipes != nil && toTCP && fromTCP {
		return p.splice(to, from, pipes, counter)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
			p.moved(int64(n), counter)
		}
		switch err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}
