package http1

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// trusted is how long an idle connection is taken to be alive without a look.
const trusted = time.Millisecond

// Pool keeps idle upstream connections by what they lead to. The zero value is ready.
type Pool[K comparable] struct {
	mu     sync.Mutex
	idle   map[K]*stack // guarded by mu
	closed bool
}

type stack struct{ conns []*Conn }

// Get returns the connection that was used last and is not known to be dead, or nil.
func (p *Pool[K]) Get(key K, now time.Time) *Conn {
	for {
		c := p.pop(key)
		if c == nil || now.Sub(c.idleSince) < trusted || alive(c.Conn) {
			return c
		}
		c.Release()
	}
}

func (p *Pool[K]) pop(key K) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.idle[key]
	if s == nil || len(s.conns) == 0 {
		return nil
	}
	last := len(s.conns) - 1
	c := s.conns[last]
	s.conns[last] = nil
	s.conns = s.conns[:last]
	return c
}

// Put keeps c for the next Get; a closed pool releases it.
func (p *Pool[K]) Put(key K, c *Conn, now time.Time) {
	c.idleSince = now
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		c.Release()
		return
	}
	if p.idle == nil {
		p.idle = map[K]*stack{}
	}
	s := p.idle[key]
	if s == nil {
		s = &stack{}
		p.idle[key] = s
	}
	s.conns = append(s.conns, c)
	p.mu.Unlock()
}

// Sweep releases the idle connections for which keep is false, given since when they are idle.
func (p *Pool[K]) Sweep(keep func(key K, idleSince time.Time) bool) {
	for _, c := range p.sweep(keep) {
		c.Release()
	}
}

func (p *Pool[K]) sweep(keep func(K, time.Time) bool) (out []*Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, s := range p.idle {
		kept := s.conns[:0]
		for _, c := range s.conns {
			if keep(key, c.idleSince) {
				kept = append(kept, c)
			} else {
				out = append(out, c)
			}
		}
		clear(s.conns[len(kept):])
		if s.conns = kept; len(kept) == 0 {
			delete(p.idle, key)
		}
	}
	return out
}

// Evict releases one idle connection whose key matches, and tells whether there was one.
func (p *Pool[K]) Evict(match func(K) bool) bool {
	c := p.evict(match)
	if c != nil {
		c.Release()
	}
	return c != nil
}

func (p *Pool[K]) evict(match func(K) bool) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, s := range p.idle {
		if len(s.conns) == 0 || !match(key) {
			continue
		}
		c := s.conns[0] // idle for longest
		s.conns = slices.Delete(s.conns, 0, 1)
		return c
	}
	return nil
}

// Close releases everything, now and from now on.
func (p *Pool[K]) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Sweep(func(K, time.Time) bool { return false })
}

// alive tells whether an idle connection has neither ended nor said something.
func alive(c net.Conn) bool {
	n, ok := pending(c)
	return ok && n == 0
}

// pending looks at a socket without reading: ok is false at its end or on an error, n > 0 if bytes wait.
func pending(c net.Conn) (n int, ok bool) {
	if t, isTLS := c.(interface{ NetConn() net.Conn }); isTLS {
		c = t.NetConn()
	}
	s, isSocket := c.(syscall.Conn)
	if !isSocket {
		return 0, true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	var b [1]byte
	err = raw.Control(func(fd uintptr) {
		n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ok = n > 0 || err == syscall.EAGAIN
	})
	return max(n, 0), ok
}
