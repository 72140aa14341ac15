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

// Run copies until both directions have ended or ctx ends, and closes both connections. They are its own meanwhile: to close
// one need not end it, nor does a deadline. The error explains Reset and is nil otherwise.
func Run(ctx context.Context, a, b net.Conn, c Config) (Reason, error) {
	p := &pair{a: a, b: b, pipes: c.Pipes, idle: c.IdleTimeout, start: time.Now()}
	p.ways = [2]way{{splicer: splicer{pipes: c.Pipes}, counter: c.Sent}, {splicer: splicer{pipes: c.Pipes}, counter: c.Received}}
	defer p.watch(ctx)()
	up := make(chan struct{})
	go func() {
		defer close(up)
		p.direction(&p.ways[0], b, a)
	}()
	p.direction(&p.ways[1], a, b)
	<-up
	if p.to.Load() != nil && p.copied.Load() < 2 {
		p.lifted()
	}
	p.end(outcome{reason: Closed})
	p.ways[0].release()
	p.ways[1].release()
	ended := p.ended.Load()
	return ended.reason, ended.err
}

// pair is two connections that end together, for the first reason that somebody finds.
type pair struct {
	a, b  net.Conn
	pipes *Pipes
	idle  time.Duration
	start time.Time
	last  atomic.Int64 // since start, nanoseconds; when a byte moved
	ended atomic.Pointer[outcome]

	ways   [2]way       // from a to b, and back
	copied atomic.Int32 // directions that came to their end

	to atomic.Pointer[loop]   // is to take the pair, once both directions have stopped
	in atomic.Pointer[looped] // has it
}

// way is a direction.
type way struct {
	splicer
	counter *atomic.Int64
	over    bool // the source has ended, and the other side was told
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
	if in := p.in.Load(); in != nil {
		in.close(o.reason == Reset)
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
func (p *pair) direction(w *way, dst, src net.Conn) {
	err := p.copy(w, dst, src)
	if err != errLifted || w.n == 0 {
		w.release()
	}
	if err == nil {
		w.over = true
		if p.copied.Add(1) < 2 {
			err = closeWrite(dst)
		}
	}
	if err != nil && err != errLifted {
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

func (p *pair) copy(w *way, dst, src net.Conn) error {
	to, toTCP := inKernel(dst)
	from, fromTCP := inKernel(src)
	if p.pipes != nil && toTCP && fromTCP {
		return p.splice(w, to, from)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
			p.moved(int64(n), w.counter)
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
