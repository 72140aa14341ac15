package global

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Config of a replica of the global controller. Zero values are allowed where the comment says so.
type Config struct {
	// ID is the replica's name, as in its intermediate certificate.
	ID string
	// Region it runs in; may be empty.
	Region string
	// DataDir holds the raft log and snapshots; made when missing.
	DataDir string
	// The listeners; TLS is added inside and Run closes them. DashboardListener may be nil.
	MeshListener, RaftListener, AdminListener, DashboardListener net.Listener
	// MeshAdvertise and RaftAdvertise are the host:port that others dial.
	MeshAdvertise, RaftAdvertise string
	// Peers are the initial replicas incl. this one: the mesh is bootstrapped with them when DataDir is empty and
	// Bootstrap is set.
	Peers     []Peer
	Bootstrap bool
	// Join is the mesh address of any running replica, asked to let this one in when DataDir is empty; "" for none.
	Join string
	// PKI is the replica's own intermediate authority and the root.
	PKI *pki.Issuer
	Log *slog.Logger
	// Metrics is registered with, and served on the dashboard listener.
	Metrics *prometheus.Registry
	// Dashboard serves static files; may be nil.
	Dashboard http.Handler
	// Timing of raft; zero is replica.LAN.
	Timing replica.Timing
	// Dial opens connections to other replicas; nil dials TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// InMemory keeps the log in memory; for simulation only.
	InMemory bool
	// Store holds the state, for programs that look on; nil is a store of its own.
	Store *mesh.Store
}

// Peer is one initial replica.
type Peer struct{ ID, RaftAddress, MeshAddress string }

func (c *Config) validate() error {
	switch {
	case c.ID == "" || c.PKI == nil || c.Log == nil || c.Metrics == nil:
		return errors.New("ID, PKI, Log and Metrics are needed")
	case c.MeshListener == nil || c.RaftListener == nil || c.AdminListener == nil:
		return errors.New("MeshListener, RaftListener and AdminListener are needed")
	case c.PKI.Replica() != c.ID:
		return fmt.Errorf("the keys belong to replica %q; start it with --id %s, or give it its own keys", c.PKI.Replica(), c.PKI.Replica())
	}
	return nil
}

func (c *Config) initial() (out []replica.Member) {
	for _, p := range c.Peers {
		out = append(out, replica.Member{ID: p.ID, Address: replica.Address{Raft: p.RaftAddress, Mesh: p.MeshAddress}, Voter: true})
	}
	return out
}

// Run serves until ctx is done, then stops everything and returns nil; or it returns what went wrong.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("global: %w", err)
	}
	p, err := build(&c)
	if err != nil {
		closeAll(c.MeshListener, c.RaftListener, c.AdminListener, c.DashboardListener)
		return fmt.Errorf("global: %w", err)
	}
	c.Log.Info("global controller starts", "id", c.ID, "mesh", c.MeshAdvertise, "raft", c.RaftAdvertise, "admin", c.AdminListener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		p.own.Run, p.verifier.Run, p.replica.Run, p.ingest.Run, p.sharer.Run, p.gate.Run, p.serveMesh, p.serveAdmin, p.serveDashboard,
	} {
		group.Go(func() error { return run(ctx) })
	}
	err = group.Wait()
	p.pool.Close()
	if err != nil {
		return fmt.Errorf("global: %w", err)
	}
	return nil
}

func closeAll(listeners ...net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close()
		}
	}
}

func (c *Config) replica(p *parts, store *mesh.Store) (*replica.Replica, error) {
	return replica.New(replica.Config{
		ID: c.ID, Address: replica.Address{Raft: c.RaftAdvertise, Mesh: c.MeshAdvertise}, DataDir: filepath.Join(c.DataDir, "raft"),
		InMemory: c.InMemory, Listener: c.RaftListener, Dial: c.Dial, Source: p.own, Domain: c.PKI.TrustDomain(), Peers: p.pool,
		Initial: c.initial(), Bootstrap: c.Bootstrap, Join: c.Join, Store: store, Timing: c.Timing, Log: c.Log, Metrics: c.Metrics,
	})
}
