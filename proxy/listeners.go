package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
)

// rebind is how long a listener that cannot be bound waits for its next try.
const rebind = time.Second

// listeners keeps the bound sockets of one direction in step with the configuration.
type listeners struct {
	serve   func(ctx context.Context, conn net.Conn, l *config.Listener)
	inbound bool // whose listeners: inbound, or all others
	log     *slog.Logger
	ctx     context.Context // of connections; ends after the drain
	cut     context.CancelFunc

	running sync.WaitGroup // accept loops and connections

	mu     sync.Mutex
	bound  map[string]*bound     // guarded by mu; by name
	conns  map[net.Conn]struct{} // guarded by mu
	failed int                   // guarded by mu; listeners that cannot be bound
	closed bool                  // guarded by mu; nothing is bound any more
	// complete is the latest configuration of which every listener is bound.
	complete watch.Value[*config.Config]
}

// bound is one listening socket; what is served on it may change.
type bound struct {
	address netip.AddrPort
	socket  *net.TCPListener
	serves  atomic.Pointer[config.Listener]
}

// run follows the configuration until ctx ends; it leaves the listeners open.
func (l *listeners) run(ctx context.Context, current *watch.Value[*config.Config]) error {
	for {
		c, next := current.Get()
		var again <-chan time.Time
		if c != nil && !l.reconcile(c) {
			again = time.After(rebind)
		}
		select {
		case <-next:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// reconcile closes what is gone first, so that its addresses are free, and tells whether all is bound.
func (l *listeners) reconcile(c *config.Config) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return true
	}
	for name, b := range l.bound {
		if want := c.Listeners[name]; want == nil || want.Address != b.address || !l.mine(want) {
			l.log.Info("listener closed", "listener", name, "address", b.address)
			b.socket.Close()
			delete(l.bound, name)
		}
	}
	l.failed = 0
	for name, want := range c.Listeners {
		if !l.mine(want) {
			continue
		}
		if b := l.bound[name]; b != nil {
			b.serves.Store(want)
		} else if err := l.bind(name, want); err != nil {
			l.failed++
			l.log.Error("listener cannot be bound; the others go on, and it is tried again", "listener", name, "address", want.Address, "err", err)
		}
	}
	if l.failed == 0 {
		l.complete.Set(c)
	}
	return l.failed == 0
}

func (l *listeners) mine(want *config.Listener) bool {
	return (want.Direction == config.Inbound) == l.inbound
}

// bind needs mu.
func (l *listeners) bind(name string, want *config.Listener) error {
	socket, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(want.Address))
	if err != nil {
		return err
	}
	b := &bound{address: want.Address, socket: socket}
	b.serves.Store(want)
	l.bound[name] = b
	l.log.Info("listener bound", "listener", name, "address", want.Address)
	l.running.Go(func() { l.accept(b) })
	return nil
}

// acceptRetry bounds the wait after an accept that failed for want of descriptors or memory.
const acceptRetryMin, acceptRetryMax = 5 * time.Millisecond, 500 * time.Millisecond

func (l *listeners) accept(b *bound) {
	retry := acceptRetryMin
	for {
		conn, err := b.socket.Accept()
		switch {
		case err == nil:
			retry = acceptRetryMin
			l.running.Go(func() { l.serveConn(conn, b.serves.Load()) })
		case errors.Is(err, net.ErrClosed), isTimeout(err):
			return
		default: // out of file descriptors: give connections time to end
			l.log.Warn("accept", "listener", b.serves.Load().Name, "err", err, "retry", retry)
			time.Sleep(retry)
			retry = min(2*retry, acceptRetryMax)
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func (l *listeners) serveConn(conn net.Conn, serves *config.Listener) {
	l.mu.Lock()
	l.conns[conn] = struct{}{}
	l.mu.Unlock()
	defer func() {
		if r := recover(); r != nil { // one request must not take all others with it
			l.log.Error("panic; the connection is closed, the others go on", "listener", serves.Name, "err", r, "stack", string(debug.Stack()))
		}
		conn.Close()
		l.mu.Lock()
		delete(l.conns, conn)
		l.mu.Unlock()
	}()
	l.serve(l.ctx, conn, serves)
}

// lastCall is how long connections that the kernel has accepted already are still taken from a socket that closes:
// closing it would reset them.
const lastCall = 20 * time.Millisecond

// close ends accepting.
func (l *listeners) close() {
	l.mu.Lock()
	sockets := l.bound
	l.bound, l.closed = map[string]*bound{}, true
	l.mu.Unlock()
	for _, b := range sockets {
		_ = b.socket.SetDeadline(time.Now().Add(lastCall))
	}
	time.Sleep(lastCall)
	for _, b := range sockets {
		b.socket.Close()
	}
}

// wait returns when no connection is left; when ctx ends it closes those that are.
func (l *listeners) wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { // ends once the connections do, which the lines below see to
		l.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	l.cut() // a connection whose bytes the kernel moves is not ended by closing it
	l.mu.Lock()
	for conn := range l.conns {
		conn.Close()
	}
	l.mu.Unlock()
	<-done
}

// count is the number of connections, and of listeners that cannot be bound.
func (l *listeners) count() (connections, unbound int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns), l.failed
}

// addresses adds what is bound, by name.
func (l *listeners) addresses(out map[string]netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, b := range l.bound {
		out[name] = b.address
	}
}
