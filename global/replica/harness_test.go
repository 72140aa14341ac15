package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/freeport"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust"
)

// plane is a control plane of replicas on loopback, each with its folder.
type plane struct {
	t       testing.TB
	dir     string
	members map[string]Member
	nodes   map[string]*running
	edit    func(*Config)
}

type running struct {
	*Replica
	store *mesh.Store
	ended chan error
	kill  func()
	stop  func() error
	hangs atomic.Bool // its disk, by what the replica is told

	mu     sync.Mutex
	dead   bool       // guarded by mu; it reaches nobody any more
	opened []net.Conn // guarded by mu
}

// dial opens a connection, unless the replica is dead by the time it is open.
func (n *running) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		conn.Close()
		return nil, net.ErrClosed
	}
	n.opened = append(n.opened, conn)
	return conn, nil
}

func (n *running) die() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
	for _, conn := range n.opened {
		conn.Close()
	}
}

func newPlane(t testing.TB, ids ...string) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir(), members: make(map[string]Member), nodes: make(map[string]*running)}
	if err := pki.Init(p.pki(), "periplus.global", ids, nil); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		p.reserve(id)
	}
	t.Cleanup(func() {
		for id := range p.nodes {
			p.stop(id)
		}
	})
	return p
}

func (p *plane) pki() string { return filepath.Join(p.dir, "pki") }

// reserve finds two free ports for a replica, so that it comes back where it was.
func (p *plane) reserve(id string) {
	var address Address
	for _, to := range []*string{&address.Raft, &address.Mesh} {
		*to = freeport.Loopback().String()
	}
	p.members[id] = Member{ID: id, Address: address, Voter: true}
}

func (p *plane) initial() (out []Member) {
	for _, m := range p.members {
		out = append(out, m)
	}
	return out
}

func (p *plane) start(id string, edit func(*Config)) *running {
	p.t.Helper()
	issuer, err := pki.Load(filepath.Join(p.pki(), id))
	if err != nil {
		p.t.Fatal(err)
	}
	source, err := issuer.Source()
	if err != nil {
		p.t.Fatal(err)
	}
	address := p.members[id].Address
	n := &running{store: new(mesh.Store)}
	pool := &peer.Pool{Source: source, Domain: issuer.TrustDomain()}
	config := Config{
		ID: id, Address: address, DataDir: filepath.Join(p.dir, "data", id), Listener: listen(p.t, address.Raft),
		Source: source, Domain: issuer.TrustDomain(), Peers: pool, Initial: p.initial(), Bootstrap: true, Store: n.store,
		Log: slog.New(slog.NewTextHandler(logOutput(), nil)), Metrics: prometheus.NewRegistry(),
	}
	config.Dial = n.dial
	if edit != nil {
		edit(&config)
	}
	if n.Replica, err = New(config); err != nil {
		p.t.Fatal(err)
	}
	n.writing = func() time.Duration {
		if n.hangs.Load() {
			return time.Minute
		}
		return n.log.Writing()
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(trust.OptionalClientConfig(source, trust.AuthorizeAny))))
	pb.RegisterPeerServiceServer(server, &Service{Replica: n.Replica})
	go server.Serve(listen(p.t, address.Mesh))
	ctx, cancel := context.WithCancel(context.Background())
	n.ended = make(chan error, 1)
	go func() { n.ended <- n.Run(ctx) }()
	n.kill = func() {
		n.die()
		n.layer.Load().CloseAll()
		server.Stop()
	}
	n.stop = func() error {
		cancel()
		server.Stop()
		pool.Close()
		return <-n.ended
	}
	p.nodes[id] = n
	return n
}

func (p *plane) stop(id string) {
	p.t.Helper()
	if err := p.nodes[id].stop(); err != nil {
		p.t.Errorf("replica %s: %v", id, err)
	}
	delete(p.nodes, id)
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leader waits for one that everybody knows.
func (p *plane) leader() string {
	p.t.Helper()
	var id string
	eventually(p.t, "a leader that all know", func() bool {
		known := make(map[string]bool)
		for _, n := range p.nodes {
			id = n.Leader()
			known[id] = true
		}
		return len(known) == 1 && p.nodes[id] != nil
	})
	return id
}

func (p *plane) follower() string {
	leader := p.leader()
	for id := range p.nodes {
		if id != leader {
			return id
		}
	}
	p.t.Fatal("no follower")
	return ""
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// gateway is the smallest object.
func gateway(cluster, name string, port int) *pb.Object {
	return &pb.Object{Kind: &pb.Object_Gateway{Gateway: &pb.Gateway{
		Cluster: cluster, Name: name, Network: "n1", Address: "10.0.0.1", Port: uint32(port), Health: pb.Health_HEALTH_HEALTHY,
	}}}
}

func put(objects ...*pb.Object) *pb.Command {
	return &pb.Command{Parts: []*pb.CommandPart{{Upserts: objects}}}
}

// digest is equal for equal states.
func digest(s *mesh.Snapshot) (out string) {
	for key, object := range s.All() {
		out += fmt.Sprintf("%s %x\n", key, meshpb.Digest(object))
	}
	return out
}

func latest(s *mesh.Store) *mesh.Snapshot {
	snapshot, _ := s.Latest()
	return snapshot
}

// logOutput is nowhere unless PERIPLUS_TEST_LOG is set.
func logOutput() io.Writer {
	if os.Getenv("PERIPLUS_TEST_LOG") != "" {
		return os.Stderr
	}
	return io.Discard
}
