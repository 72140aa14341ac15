package sim

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// controller is one replica, of which the disk outlives the process.
type controller struct {
	w       *world
	id      string
	store   *mesh.Store // of the present process
	process *process    // nil: down
}

func (c *controller) up() bool { return c.process != nil }

func (c *controller) snapshot() *mesh.Snapshot {
	snapshot, _ := c.store.Latest()
	return snapshot
}

func (c *controller) start() {
	issuer, err := pki.Load(filepath.Join(c.w.pki(), c.id))
	c.w.must(err)
	c.store = new(mesh.Store)
	config := global.Config{
		ID: c.id, DataDir: filepath.Join(c.w.dir, c.id), MeshAdvertise: c.id + meshPort, RaftAdvertise: c.id + raftPort,
		MeshListener: c.w.listen(c.id + meshPort), RaftListener: c.w.listen(c.id + raftPort), AdminListener: c.w.listen(c.id + adminPort),
		Timing:    replica.Timing{Heartbeat: time.Second, Election: time.Second, Lease: 500 * time.Millisecond, Commit: 100 * time.Millisecond},
		Bootstrap: true, PKI: issuer, Store: c.store, Log: logger(c.id), Metrics: prometheus.NewRegistry(),
	}
	for _, p := range c.w.controllers {
		config.Peers = append(config.Peers, global.Peer{ID: p.id, RaftAddress: p.id + raftPort, MeshAddress: p.id + meshPort})
	}
	store := c.store
	c.process = c.w.run(c.id, func(ctx context.Context, p *process) error {
		config.Dial = p.dial
		p.running.Go(func() { c.w.invariants.watchReplica(ctx, c.id, store) })
		return global.Run(ctx, config)
	})
}

func (c *controller) kill() {
	c.process.kill()
	c.process = nil
}

// others are the hosts of the other controllers.
func (c *controller) others() (hosts []string) {
	for _, other := range c.w.controllers {
		if other != c {
			hosts = append(hosts, other.id)
		}
	}
	return hosts
}

// leader asks who leads until somebody does.
func (w *world) leader() *controller {
	w.t.Helper()
	var leader string
	w.until("somebody leads", 30*time.Second, func() error {
		return w.ask(func(ctx context.Context, api admin) error {
			overview, err := api.mesh.Overview(ctx, connect.NewRequest(&pb.OverviewRequest{}))
			if err != nil {
				return err
			}
			if leader = overview.Msg.GetLeader(); leader == "" {
				return fmt.Errorf("nobody")
			}
			return nil
		})
	})
	return w.controller(leader)
}

// setState drains or activates a cluster.
func (w *world) setState(name string, state pb.ClusterState) error {
	if state == pb.ClusterState_CLUSTER_STATE_DRAINED {
		w.invariants.allow(name, true)
	}
	return w.ask(func(ctx context.Context, api admin) error {
		_, err := api.clusters.SetClusterState(ctx, connect.NewRequest(&pb.SetClusterStateRequest{Id: name, State: state}))
		return err
	})
}

// remove removes a registration with everything that hangs on it.
func (w *world) remove(name string) {
	w.invariants.setRemoved(name, true)
	w.must(w.ask(func(ctx context.Context, api admin) error {
		_, err := api.clusters.RemoveCluster(ctx, connect.NewRequest(&pb.RemoveClusterRequest{Id: name, Force: true}))
		return err
	}))
}

// apply applies a policy of namespace shop.
func (w *world) apply(kind, name, spec string) error {
	group := "networking.istio.io/v1"
	if kind == "AuthorizationPolicy" {
		group = "security.istio.io/v1"
	}
	document := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s, namespace: shop}\nspec: %s\n", group, kind, name, spec)
	return w.ask(func(ctx context.Context, api admin) error {
		_, err := api.policies.ApplyPolicy(ctx, connect.NewRequest(&pb.ApplyPolicyRequest{Documents: []byte(document), File: "sim.yaml"}))
		return err
	})
}

// withdraw deletes a policy of namespace shop; it need not exist.
func (w *world) withdraw(kind, name string) error {
	return w.ask(func(ctx context.Context, api admin) error {
		_, err := api.policies.DeletePolicy(ctx, connect.NewRequest(&pb.DeletePolicyRequest{Kind: kind, Namespace: "shop", Name: name}))
		if connect.CodeOf(err) == connect.CodeNotFound {
			return nil
		}
		return err
	})
}
