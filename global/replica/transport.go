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
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

const (
	handshakeTimeout = 5 * time.Second
	// maxHandshakes may be in progress, and maxHandshakesOfHost from one host, so that no stranger who says nothing keeps
	// the others out. What comes beyond that is closed: raft dials again.
	maxHandshakes       = 256
	maxHandshakesOfHost = 16
	acceptPause         = 100 * time.Millisecond // after an error, such as too many open files
	raftIOTimeout       = 10 * time.Second
)

var errSilent = errors.New("this replica's disk hangs; it does not speak")

// streamLayer is raft's transport: TLS 1.3 between controllers of one control plane.
type streamLayer struct {
	ctx      context.Context // raft's interfaces have none; done when the replica stops
	listener net.Listener
	source   trust.Source
	domain   spiffeid.TrustDomain
	removed  func(replica string) bool
	dial     func(ctx context.Context, address string) (net.Conn, error)
	address  Address
	log      *slog.Logger
	accepted chan net.Conn

	mu     sync.Mutex
	silent bool              // guarded by mu
	living map[net.Conn]link // guarded by mu
	// shaking counts the handshakes in progress, by host. Guarded by mu.
	shaking map[string]int
}

// link is what is known of a living connection.
type link struct {
	dialed bool   // this side opened it
	peer   string // the replica at the other end
}

func newStreamLayer(ctx context.Context, c *Config) *streamLayer {
	return &streamLayer{
		ctx: ctx, listener: c.Listener, source: c.Source, domain: c.Domain, removed: c.removed,
		dial: c.Dial, address: c.Address, log: c.Log,
		accepted: make(chan net.Conn), living: make(map[net.Conn]link), shaking: make(map[string]int),
	}
}

// serve accepts and authenticates until the listener is closed. An error of one Accept ends nothing.
func (s *streamLayer) serve() error {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.log.Warn("raft listener", "err", err)
			sleep(s.ctx, acceptPause)
			continue
		}
		done, ok := s.admit(conn.RemoteAddr())
		if !ok {
			conn.Close()
			continue
		}
		group.Go(func() {
			defer done()
			s.authenticate(conn)
		})
	}
}

// admit counts a handshake with a peer until done is called, unless there are too many.
func (s *streamLayer) admit(address net.Addr) (done func(), ok bool) {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		host = address.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.shaking {
		all += n
	}
	if all >= maxHandshakes || s.shaking[host] >= maxHandshakesOfHost {
		return nil, false
	}
	s.shaking[host]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.shaking[host]--; s.shaking[host] == 0 {
			delete(s.shaking, host)
		}
	}, true
}

func (s *streamLayer) authenticate(raw net.Conn) {
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, peer.Bound(trust.ServerConfig(s.source, s.authorize)))
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
	conn := tls.Client(raw, peer.Bound(trust.ClientConfig(s.source, s.authorize)))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("raft peer %s: %w", target.Raft, err)
	}
	return s.track(conn, true)
}

// authorize accepts the replicas of the control plane but those that were removed.
func (s *streamLayer) authorize(id spiffeid.ID) error {
	name, err := peer.Identity{ID: id}.Plane(s.domain, mesh.RoleController)
	if err == nil && s.removed(name) {
		err = fmt.Errorf("replica %q was removed", name)
	}
	return err
}

func (s *streamLayer) track(conn *tls.Conn, dialed bool) (net.Conn, error) {
	l := link{dialed: dialed}
	if id, err := trust.PeerID(conn.ConnectionState()); err == nil {
		_, l.peer, _ = mesh.ParsePlaneIdentity(id) // authorize has let it pass
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent && dialed || s.ctx.Err() != nil {
		conn.Close()
		return nil, errSilent
	}
	s.living[conn] = l
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
		s.closeConnections(func(l link) bool { return l.dialed })
	}
}

// closeConnections also ends raft's goroutines that read from them: raft closes none by itself.
func (s *streamLayer) closeConnections(which func(link) bool) {
	s.mu.Lock()
	var closing []net.Conn
	for conn, l := range s.living {
		if which(l) {
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
