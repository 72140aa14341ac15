package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/trust"
)

const (
	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 32
	raftIOTimeout    = 10 * time.Second
)

var errSilent = errors.New("this replica's disk hangs; it does not speak")

// streamLayer is raft's transport: TLS 1.3 between controllers of one control plane.
type streamLayer struct {
	ctx      context.Context // raft's interfaces have none; done when the replica stops
	listener net.Listener
	source   trust.Source
	domain   spiffeid.TrustDomain
	dial     func(ctx context.Context, address string) (net.Conn, error)
	address  Address
	log      *slog.Logger
	accepted chan net.Conn

	mu     sync.Mutex
	silent bool              // guarded by mu
	living map[net.Conn]bool // guarded by mu; true: this side opened it
}

func newStreamLayer(ctx context.Context, c *Config) *streamLayer {
	return &streamLayer{
		ctx: ctx, listener: c.Listener, source: c.Source, domain: c.Domain, dial: c.Dial, address: c.Address, log: c.Log,
		accepted: make(chan net.Conn), living: make(map[net.Conn]bool),
	}
}

// serve accepts and authenticates until the listener is closed.
func (s *streamLayer) serve() error {
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, maxHandshakes)
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("raft listener: %w", err)
		}
		slots <- struct{}{}
		group.Go(func() {
			s.authenticate(conn)
			<-slots
		})
	}
}

func (s *streamLayer) authenticate(raw net.Conn) {
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, trust.ServerConfig(s.source, peer.OnlyController(s.domain, "")))
	if err := conn.HandshakeContext(ctx); err != nil {
		s.log.Warn("raft connection refused", "peer", raw.RemoteAddr().String(), "err", err)
		raw.Close()
		return
	}
	known, err := s.track(conn, false)
	if err != nil {
		return
	}
	select {
	case s.accepted <- known:
	case <-s.ctx.Done():
		known.Close()
	}
}

// Accept implements net.Listener for raft.
func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *streamLayer) Close() error { return s.listener.Close() }

// Addr is the address that raft tells others.
func (s *streamLayer) Addr() net.Addr { return raftAddr(s.address.String()) }

type raftAddr string

func (raftAddr) Network() string  { return "raft" }
func (a raftAddr) String() string { return string(a) }

// Dial implements raft.StreamLayer.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	target, err := ParseAddress(string(address))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	raw, err := s.dial(ctx, target.Raft)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, trust.ClientConfig(s.source, peer.OnlyController(s.domain, "")))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("raft peer %s: %w", target.Raft, err)
	}
	return s.track(conn, true)
}

func (s *streamLayer) track(conn net.Conn, dialed bool) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent && dialed || s.ctx.Err() != nil {
		conn.Close()
		return nil, errSilent
	}
	s.living[conn] = dialed
	return &tracked{conn, s}, nil
}

type tracked struct {
	net.Conn
	layer *streamLayer
}

func (t *tracked) Close() error {
	t.layer.mu.Lock()
	delete(t.layer.living, t.Conn)
	t.layer.mu.Unlock()
	return t.Conn.Close()
}

// setSilent closes what this side opened and opens nothing more, or allows it again.
func (s *streamLayer) setSilent(silent bool) {
	s.mu.Lock()
	s.silent = silent
	s.mu.Unlock()
	if silent {
		s.closeConnections(func(dialed bool) bool { return dialed })
	}
}

// closeConnections also ends raft's goroutines that read from them: raft closes none by itself.
func (s *streamLayer) closeConnections(which func(dialed bool) bool) {
	s.mu.Lock()
	var closing []net.Conn
	for conn, dialed := range s.living {
		if which(dialed) {
			closing = append(closing, conn)
			delete(s.living, conn)
		}
	}
	s.mu.Unlock()
	for _, conn := range closing {
		conn.Close()
	}
}

func (s *streamLayer) isSilent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent
}
