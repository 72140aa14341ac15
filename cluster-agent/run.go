package clusteragent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/periplus-mesh/periplus/cluster-agent/credential"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

// Run is an agent, until ctx is done; then it returns nil. It returns an error when it cannot start: a token that
// the controllers refuse, a folder of another cluster, an identity that is not the agent's.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	defer c.Listener.Close()
	unlock, err := lock(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := durable.Sweep(c.DataDir); err != nil {
		return fmt.Errorf("agent: data folder: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	admin := newAdmin(c)
	group.Go(func() error { return admin.run(ctx) })
	group.Go(func() error { return start(ctx, c, admin) })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// start obtains the credential, and then runs everything that needs one.
func start(ctx context.Context, c Config, admin *admin) error {
	identity, err := credential.Obtain(ctx, credential.Config{
		DataDir: c.DataDir, Token: c.JoinToken, Version: c.Version, Dial: c.Dial, Log: c.Log, Metrics: c.Metrics,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a, err := assemble(c, identity)
	if err != nil {
		return err
	}
	admin.agent.Store(a)
	return a.run(ctx)
}

// run owns every loop of the agent.
func (a *agent) run(ctx context.Context) error {
	a.restore()
	a.setCluster()
	group, ctx := errgroup.WithContext(ctx)
	for _, loop := range []func(context.Context) error{
		a.credential.Run, a.followCluster, a.followMembers, a.registry.Run, a.keep, a.follower.Run, a.reporter.Run, a.awaitSources, a.serve,
	} {
		group.Go(func() error { return loop(ctx) })
	}
	if a.file != nil {
		group.Go(func() error { return a.file.Run(ctx) })
	}
	for _, source := range a.config.Sources {
		group.Go(func() error { return a.runSource(ctx, source) })
	}
	return group.Wait()
}

// serve waits for the agent's own SVID, then federates and serves the proxies.
func (a *agent) serve(ctx context.Context) error {
	source := a.config.Source
	if source == nil {
		watched, err := trust.Watch(ctx, a.config.WorkloadSocket, a.config.Log)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		defer watched.Close()
		source = watched
	}
	if !a.awaitIdentity(ctx, source) {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.serveProxies(ctx, source) })
	if a.config.federates() {
		group.Go(func() error { return a.federate(ctx, source) })
	}
	return group.Wait()
}

// awaitIdentity waits until the Workload API gives the agent's identity, which may be registered late.
func (a *agent) awaitIdentity(ctx context.Context, source trust.Source) bool {
	want := mesh.AgentIdentity(a.table.Owner().Domain)
	for {
		material, changed := source.Get()
		if material.ID == want {
			return true
		}
		a.config.Log.Error("the workload API gave another identity than the agent's: register that for the agent's process", "got", material.ID, "want", want)
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// setCluster writes the own cluster's registration to the store.
func (a *agent) setCluster() <-chan struct{} {
	cluster, changed := a.credential.WatchCluster()
	if held := snapshotOf(a.store).Cluster(cluster.ID); held != cluster {
		a.store.Update(mesh.Delta{Upserts: []mesh.Object{cluster}})
	}
	return changed
}

func (a *agent) followCluster(ctx context.Context) error {
	for {
		changed := a.setCluster()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// restore fills the own cluster's part of the store from disk.
func (a *agent) restore() {
	content, ok := a.keeper.Load()
	if !ok {
		return
	}
	for source, objects := range content.Objects {
		if source == workloads {
			a.registry.Restore(objects)
			continue
		}
		if !a.hasSource(source) {
			a.config.Log.Warn("what a source said before the restart is dropped: the agent was started without it", "source", source.String(), "objects", len(objects))
			continue
		}
		a.table.Replace(source, objects)
	}
	a.restored = true
	a.config.Log.Info("own cluster restored from disk", "cluster", a.table.Owner().Cluster, "age", time.Since(content.MadeAt).Round(time.Second))
}

// hasSource tells whether anybody would ever correct what is restored for source.
func (a *agent) hasSource(source own.Source) bool {
	if source != own.Kubernetes && source != own.Etcd {
		return true
	}
	return slices.ContainsFunc(a.config.Sources, func(s Source) bool { return s.Layer() == source })
}

// keep saves the own cluster's part of the store, once that is whole: after the disk was lost, the sidecars must have
// had the time to come back, else a second restart would take the half of them for all.
func (a *agent) keep(ctx context.Context) error {
	if !a.settled(ctx) {
		return nil
	}
	return a.keeper.Run(ctx)
}

// settled waits until what is not there is known to be gone, or never was; false: ctx is done. That is at once if the
// disk had the cluster, or if the cluster is new: registered by this process, and controllers have nothing of it. Else the
// folder was lost, and the sidecars must have the time to come back.
func (a *agent) settled(ctx context.Context) bool {
	for !a.restored {
		status, changed := a.reporter.WatchStatus()
		if a.credential.Fresh() && status.Epoch > 0 && status.Had == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return false
		case <-a.registry.Synced():
			return true
		case <-changed:
		}
	}
	return true
}

// awaitSources makes the store ready once "not there" means "does not exist".
func (a *agent) awaitSources(ctx context.Context) error {
	if !a.restored && !a.sourcesSynced(ctx) {
		return nil
	}
	close(a.sourcesRead)
	if !a.settled(ctx) {
		return nil
	}
	select {
	case <-a.follower.Synced():
	case <-ctx.Done():
		return nil
	}
	a.store.MarkReady()
	a.metrics.ready.Set(1)
	a.config.Log.Info("ready", "cluster", a.table.Owner().Cluster, "address", a.config.Advertise)
	return nil
}

// lock makes the folder this agent's until unlock.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("agent: data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("agent: data folder %s is in use by another agent", dir)
		}
		return nil, fmt.Errorf("agent: data folder: %w", err)
	}
	return func() { f.Close() }, nil
}

// newInstance names this process.
func newInstance() string { return rand.Text() }
