package link

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

)

// ErrSilent is what Dial fails with after SetSilent.
var ErrSilent = errors.New("this replica's disk hangs; it does not speak")

// Config of a [Layer]. Everything is needed, but to dial only: Listener and Address.
type Config struct {
	// Listener is closed by [Layer.Close].
	Listener net.Listener
	// Address is what raft tells others of this replica.
	Address raft.ServerAddress
	// Target finds where a replica's raft listens, in the address that raft has of it.
	Target func(raft.ServerAddress) (string, error)
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Source trust.Source
	Domain spiffeid.TrustDomain // of the control plane
	// Removed tells whether a replica has left for good.
	Removed func(replica string) bool
	Log     *slog.Logger
}

// Layer is a raft.StreamLayer: TLS 1.3 between controllers of one control plane. Safe for concurrent use.
type Layer struct {
	ctx      context.Context // raft's interfaces have none; done when the replica stops
	config   Config
	accepted chan net.Conn

	mu     sync.Mutex
	silent bool             // guarded by mu
	living map[net.Conn]end // guarded by mu
	// shaking counts the handshakes in progress, by host. Guarded by mu.
	shaking map[string]int
}

// end is what is known of a living connection's other end.
type end struct {
	dialed bool   // this side opened it
	peer   string // the replica at the other end
}

// New makes a layer that accepts and dials until ctx ends.
func New(ctx context.Context, c Config) *Layer {
	return &Layer{
		ctx: ctx, config: c, accepted: make(chan net.Conn), living: make(map[net.Conn]end), shaking: make(map[string]int),
	}
}

// Serve accepts and authenticates until the listener is closed. An error of one Accept ends nothing.
func (s *Layer) Serve() error {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := s.config.Listener.Accept()
		if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.config.Log.Warn("raft listener", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-s.ctx.Done():
			}
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
func (s *Layer) admit(address net.Addr) (done func(), ok bool) {
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

func (s *Layer) authenticate(raw net.Conn) {
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, peer.Bound(trust.ServerConfig(s.config.Source, s.authorize)))
	if err := conn.HandshakeContext(ctx); err != nil {
		s.config.Log.Warn("raft connection refused", "peer", raw.RemoteAddr().String(), "err", err)
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
func (s *Layer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *Layer) Close() error { return s.config.Listener.Close() }

// Addr is the address that raft tells others.
func (s *Layer) Addr() net.Addr { return raftAddr(s.config.Address) }

type raftAddr string

func (raftAddr) Network() string  { return "raft" }
func (a raftAddr) String() string { return string(a) }

// Dial implements raft.StreamLayer.
func (s *Layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	target, err := s.config.Target(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	raw, err := s.config.Dial(ctx, target)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, peer.Bound(trust.ClientConfig(s.config.Source, s.authorize)))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("raft peer %s: %w", target, err)
	}
	return s.track(conn, true)
}

// authorize accepts the replicas of the control plane but those that were removed.
func (s *Layer) authorize(id spiffeid.ID) error {
	name, err := peer.Identity{ID: id}.Plane(s.config.Domain, mesh.RoleController)
	if err == nil && s.config.Removed(name) {
		err = fmt.Errorf("replica %q was removed", name)
	}
	return err
}

func (s *Layer) track(conn *tls.Conn, dialed bool) (net.Conn, error) {
	l := end{dialed: dialed}
	if id, err := trust.PeerID(conn.ConnectionState()); err == nil {
		_, l.peer, _ = mesh.ParsePlaneIdentity(id) // authorize has let it pass
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent && dialed || s.ctx.Err() != nil {
		conn.Close()
		return nil, ErrSilent
	}
	s.living[conn] = l
	return &tracked{conn, s}, nil
}

type tracked struct {
	net.Conn
	layer *Layer
}

func (t *tracked) Close() error {
	t.layer.mu.Lock()
	delete(t.layer.living, t.Conn)
	t.layer.mu.Unlock()
	return t.Conn.Close()
}

// SetSilent closes what this side opened and opens nothing more, or allows it again.
func (s *Layer) SetSilent(silent bool) {
	s.mu.Lock()
	s.silent = silent
	s.mu.Unlock()
	if silent {
		s.close(func(e end) bool { return e.dialed })
	}
}

// Silent is what SetSilent last said.
func (s *Layer) Silent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent
}

// CloseAll closes every connection. It also ends raft's goroutines that read from them: raft closes none by itself.
func (s *Layer) CloseAll() { s.close(func(end) bool { return true }) }

// CloseRemoved closes the connections with replicas that were removed.
func (s *Layer) CloseRemoved() { s.close(func(e end) bool { return s.config.Removed(e.peer) }) }

func (s *Layer) close(which func(end) bool) {
	s.mu.Lock()
	var closing []net.Conn
	for conn, e := range s.living {
		if which(e) {
			closing = append(closing, conn)
			delete(s.living, conn)
		}
	}
	s.mu.Unlock()
	for _, conn := range closing {
		conn.Close()
	}
}

// Peers are the replicas at the other ends of the living connections, each as often as there are.
func (s *Layer) Peers() (peers []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.living {
		peers = append(peers, e.peer)
	}
	return peers
}
