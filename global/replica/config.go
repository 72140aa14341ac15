package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/replica/link"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

// Config of a replica.
type Config struct {
	// ID is unique and for ever; it is the name in the replica's SVID.
	ID      string
	Address Address // where others reach it
	// DataDir holds log and snapshots; made when missing.
	DataDir string
	// InMemory keeps everything in memory: for simulation only. A replica that forgets its votes can lose writes.
	InMemory bool
	// Listener is for raft; TLS is added here. Closed by Run.
	Listener net.Listener
	// Dial opens a transport connection; nil dials TCP.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Source trust.Source
	Domain spiffeid.TrustDomain // of the control plane
	Peers  *peer.Pool
	// Initial replicas incl. self, used when DataDir is empty and Bootstrap is set. Equal on all of them.
	Initial   []Member
	Bootstrap bool
	// Join is the mesh address of any replica of a running mesh, asked when DataDir is empty; "" does not join.
	Join  string
	Store *mesh.Store
	// Timing of raft; zero is [LAN].
	Timing Timing
	// SnapshotEvery is how often the need for a snapshot is looked at; 0 is 2 min. SnapshotAfter is the number of
	// entries that make one worth while; 0 is 8192. TrailingEntries stay in the log for slow followers; 0 is 10240.
	SnapshotEvery   time.Duration
	SnapshotAfter   uint64
	TrailingEntries uint64
	// HandOverAfter is how long one write to the log may take before the leader falls silent; 0 is 3 s. ExitAfter
	// is how long before Run gives up; 0 is 10 s.
	HandOverAfter, ExitAfter time.Duration
	// ProposeTimeout bounds a proposal, so that whoever would wait longer learns why it failed; 0 is 10 s.
	ProposeTimeout time.Duration
	Log            *slog.Logger
	Metrics        prometheus.Registerer
}

// Timing of raft. Heartbeat is the silence after which followers stand for election, Election a candidate's
// patience, Lease the silence after which a leader steps down (<= Heartbeat), Commit the delay after which
// followers are told of a commit when nothing else is sent.
type Timing struct{ Heartbeat, Election, Lease, Commit time.Duration }

// LAN fits round trips up to 50 ms: a lost leader is replaced in 0.6-2 s. WAN fits 150 ms and bad links.
var (
	LAN = Timing{Heartbeat: 600 * time.Millisecond, Election: 600 * time.Millisecond, Lease: 400 * time.Millisecond, Commit: 10 * time.Millisecond}
	WAN = Timing{Heartbeat: 2 * time.Second, Election: 2 * time.Second, Lease: time.Second, Commit: 50 * time.Millisecond}
)

// Address is where a replica is reached: raft between replicas, and the mesh listener with its PeerService.
type Address struct{ Raft, Mesh string }

// String is "raft,mesh": how raft stores it.
func (a Address) String() string { return a.Raft + "," + a.Mesh }

// ParseAddress reads what [Address.String] wrote.
func ParseAddress(s string) (Address, error) {
	raftAddress, meshAddress, ok := strings.Cut(s, ",")
	a := Address{raftAddress, meshAddress}
	if !ok {
		return a, fmt.Errorf("replica address %q: want RAFT_HOST:PORT,MESH_HOST:PORT", s)
	}
	return a, a.validate()
}

// maxAddressBytes has room on disk beside the term of the vote that the replica was given.
const maxAddressBytes = 400

func (a Address) validate() error {
	for _, one := range []string{a.Raft, a.Mesh} {
		if _, _, err := net.SplitHostPort(one); err != nil || strings.Contains(one, ",") {
			return fmt.Errorf("replica address %q: want RAFT_HOST:PORT,MESH_HOST:PORT", a)
		}
	}
	if len(a.String()) > maxAddressBytes {
		return fmt.Errorf("replica address %q has %d bytes: want at most %d", a, len(a.String()), maxAddressBytes)
	}
	return nil
}

// Member is one replica as raft knows it.
type Member struct {
	ID      string
	Address Address
	Voter   bool
	Leader  bool
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c *Config) validate() error {
	orDefault(&c.Timing, LAN)
	orDefault(&c.SnapshotEvery, 2*time.Minute)
	orDefault(&c.SnapshotAfter, 8192)
	orDefault(&c.TrailingEntries, 10240)
	orDefault(&c.HandOverAfter, 3*time.Second)
	orDefault(&c.ExitAfter, 10*time.Second)
	orDefault(&c.ProposeTimeout, 10*time.Second)
	switch {
	case c.ID == "":
		return errors.New("ID is missing")
	case c.DataDir == "" && !c.InMemory:
		return errors.New("DataDir is missing")
	case c.Listener == nil || c.Source == nil || c.Peers == nil || c.Store == nil || c.Log == nil || c.Metrics == nil:
		return errors.New("Listener, Source, Peers, Store, Log and Metrics are needed")
	case c.Bootstrap && c.Join != "":
		return errors.New("Bootstrap and Join exclude each other")
	case c.Bootstrap && len(c.Initial) == 0:
		return errors.New("Bootstrap needs the initial replicas")
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	return c.Address.validate()
}

// removed tells whether a replica has left for good, as far as the local state knows.
func (c *Config) removed(replica string) bool {
	snapshot, _ := c.Store.Latest()
	return snapshot.RemovedReplica(replica) != nil
}

func (c *Config) link() link.Config {
	return link.Config{
		Listener: c.Listener, Address: raft.ServerAddress(c.Address.String()), Dial: c.Dial, Source: c.Source, Domain: c.Domain,
		Removed: c.removed, Log: c.Log,
		Target: func(address raft.ServerAddress) (string, error) {
			a, err := ParseAddress(string(address))
			return a.Raft, err
		},
	}
}

func (c *Config) raft() *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(c.ID)
	config.HeartbeatTimeout, config.ElectionTimeout = c.Timing.Heartbeat, c.Timing.Election
	config.LeaderLeaseTimeout, config.CommitTimeout = c.Timing.Lease, c.Timing.Commit
	config.MaxAppendEntries, config.BatchApplyCh = 256, true // proposals that wait share one write to disk
	config.SnapshotInterval, config.SnapshotThreshold = c.SnapshotEvery, c.SnapshotAfter
	config.TrailingLogs = c.TrailingEntries
	config.NoLegacyTelemetry = true
	config.Logger = newHCLog(c.Log)
	return config
}

func (c *Config) configuration() (raft.Configuration, error) {
	var out raft.Configuration
	self := false
	for _, m := range c.Initial {
		if err := m.Address.validate(); err != nil {
			return out, fmt.Errorf("initial replica %q: %w", m.ID, err)
		}
		self = self || m.ID == c.ID
		out.Servers = append(out.Servers, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address.String())})
	}
	if !self {
		return out, fmt.Errorf("the initial replicas do not include %q itself", c.ID)
	}
	return out, nil
}
