package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/periplus-mesh/periplus/trust"
)

// ErrUnreachable is returned when no connection could be made: the call has not been sent.
var ErrUnreachable = errors.New("replica is not reachable")

// Pool keeps connections to other replicas. Make it with all exported fields set; Close it at the end.
type Pool struct {
	Source trust.Source
	Domain spiffeid.TrustDomain // of the control plane
	// Dial opens a transport connection; nil dials TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	mu          sync.Mutex
	closed      bool                        // guarded by mu
	connections map[target]*grpc.ClientConn // guarded by mu
}

type target struct{ id, address string }

// Connect returns a ready connection to replica id (empty: any replica) at address. Errors are [ErrUnreachable].
func (p *Pool) Connect(ctx context.Context, id, address string) (*grpc.ClientConn, error) {
	t := target{id, address}
	conn, err := p.connection(t)
	if err != nil {
		return nil, err
	}
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return conn, nil
		case connectivity.Idle:
			conn.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			p.forget(t, conn)
			return nil, fmt.Errorf("replica %q at %s: %w", id, address, ErrUnreachable)
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil, fmt.Errorf("replica %q at %s: %w", id, address, ErrUnreachable)
		}
	}
}

// forget closes a connection that failed: whoever asks again soon finds a fresh attempt. ClientConn's own
// ResetConnectBackoff must not be used for that: it iterates over a map that the balancer writes (grpc-go 1.85).
func (p *Pool) forget(t target, conn *grpc.ClientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connections[t] == conn {
		delete(p.connections, t)
	}
	conn.Close()
}

func (p *Pool) connection(t target) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed { // a call that began before the end and tries again
		return nil, fmt.Errorf("replica %q at %s: this one ends: %w", t.id, t.address, ErrUnreachable)
	}
	if conn, ok := p.connections[t]; ok {
		return conn, nil
	}
	config := Bound(trust.ClientConfig(p.Source, OnlyController(p.Domain, t.id)))
	conn, err := grpc.NewClient("passthrough:///"+t.address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(p.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("replica %q at %s: %w", t.id, t.address, err)
	}
	if p.connections == nil {
		p.connections = make(map[target]*grpc.ClientConn)
	}
	p.connections[t] = conn
	return conn, nil
}

func (p *Pool) dial(ctx context.Context, address string) (net.Conn, error) {
	if p.Dial != nil {
		return p.Dial(ctx, address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// Retain closes the connections to every replica that is not in ids. One to any replica, by which this one may be joining
// just now, stays.
func (p *Pool) Retain(ids map[string]bool) {
	p.close(func(t target) bool { return t.id == "" || ids[t.id] })
}

// Close closes every connection; Connect makes none any more.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.close(func(target) bool { return false })
}

func (p *Pool) close(but func(target) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, conn := range p.connections {
		if !but(t) {
			conn.Close()
			delete(p.connections, t)
		}
	}
}
