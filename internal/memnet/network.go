package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// Network joins named hosts. An address is host:port; hosts exist by being used. It must not be copied.
type Network struct {
	mu        sync.Mutex // guards below
	listeners map[string]*listener
	conns     map[*conn]struct{} // open ones
	cuts      map[[2]string]bool
	delay     time.Duration
	healed    chan struct{} // closed when a cut ends
	ports     int
}

// addr is a host:port.
type addr string

func (addr) Network() string  { return "memnet" }
func (a addr) String() string { return string(a) }

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// Listen listens at host:port.
func (n *Network) Listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = make(map[string]*listener)
	}
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("memnet: listen %s: %w", address, syscall.EADDRINUSE)
	}
	l := &listener{network: n, address: address, queue: make(chan *conn, 1024), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Dial connects from a host without a name.
func (n *Network) Dial(ctx context.Context, address string) (net.Conn, error) {
	return n.From("")(ctx, address)
}

// From returns a dial function for a host.
func (n *Network) From(host string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		if err := n.reach(ctx, host, hostOf(address)); err != nil {
			return nil, fmt.Errorf("memnet: dial %s: %w", address, err)
		}
		c, err := n.connect(host, address)
		if err != nil {
			return nil, fmt.Errorf("memnet: dial %s: %w", address, err)
		}
		return c, nil
	}
}

// reach waits for a round trip, and as long as the hosts are cut off.
func (n *Network) reach(ctx context.Context, a, b string) error {
	for {
		cut, healed, delay := n.path(a, b)
		if cut {
			select {
			case <-healed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-time.After(2 * delay):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Network) connect(host, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[address]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	n.ports++
	client, server := newPair(n, addr(fmt.Sprintf("%s:%d", host, 30000+n.ports)), addr(address))
	select {
	case l.queue <- server:
	default:
		return nil, syscall.ECONNREFUSED
	}
	if n.conns == nil {
		n.conns = make(map[*conn]struct{})
	}
	n.conns[client], n.conns[server] = struct{}{}, struct{}{}
	return client, nil
}

// path says whether b cannot hear a, what closes when any cut ends, and how long a byte travels.
func (n *Network) path(a, b string) (cut bool, healed <-chan struct{}, delay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.healed == nil {
		n.healed = make(chan struct{})
	}
	return n.cuts[[2]string{a, b}], n.healed, n.delay
}

// SetDelay sets how long everything written from now on takes one way.
func (n *Network) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// Cut holds back what a sends to b, and b to a, until [Network.Heal].
func (n *Network) Cut(a, b string) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay holds back what from sends to to.
func (n *Network) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts == nil {
		n.cuts = make(map[[2]string]bool)
	}
	n.cuts[[2]string{from, to}] = true
}

// Heal ends every cut between two hosts.
func (n *Network) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cuts, [2]string{a, b})
	delete(n.cuts, [2]string{b, a})
	if n.healed != nil {
		close(n.healed)
		n.healed = nil
	}
}

// Kill closes a host's listeners and resets its connections, as the end of its process would.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	var listeners []*listener
	for address, l := range n.listeners {
		if hostOf(address) == host {
			listeners = append(listeners, l)
		}
	}
	var conns []*conn
	for c := range n.conns {
		if hostOf(string(c.local)) == host {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range conns {
		c.reset()
	}
}

func (n *Network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

type listener struct {
	network *Network
	address string
	queue   chan *conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.address)
		l.network.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.reset()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.address) }
