package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica/disk"
	"github.com/periplus-mesh/periplus/global/replica/divergence"
	"github.com/periplus-mesh/periplus/global/replica/link"
)

// ErrCorrupt is returned by New and Run when the stored state is damaged. The replica must be replaced.
var ErrCorrupt = disk.ErrCorrupt

// Errors of Run.
var (
	// ErrDisk: one write to the log lasted longer than Config.ExitAfter. The process must end; goroutines that
	// wait for the disk are left behind.
	ErrDisk = errors.New("disk hangs")
	// ErrDiverged: most replicas agree on another state than this one's at the same index.
	ErrDiverged = errors.New("state is not what the other replicas have; delete this replica's data folder and start it with --join")
	// ErrRemoved: the replica was removed from the mesh.
	ErrRemoved = errors.New("removed from the mesh for good: its successor needs a name and keys of its own (periplus global init --replica NAME)")
)

// raftIOTimeout bounds one request between replicas.
const raftIOTimeout = 10 * time.Second

// Replica is one member of the global controller's raft group.
type Replica struct {
	config Config
	log    *disk.Log
	// writing is how long the write to the log in progress has lasted; 0 when there is none.
	writing func() time.Duration
	fsm     *fsm
	node    atomic.Pointer[raft.Raft] // nil until Run has started it
	layer   atomic.Pointer[link.Layer]
	jury    divergence.Jury
	differ  atomic.Int64 // replicas whose state differs from this one's
}

// New opens the stored state. Run must follow, and closes it. Damage is [ErrCorrupt].
func New(c Config) (*Replica, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("replica %q: %w", c.ID, err)
	}
	r := &Replica{config: c, fsm: &fsm{store: c.Store}}
	if c.InMemory {
		r.log = disk.MemoryLog()
	} else {
		log, err := disk.OpenLog(c.DataDir)
		if err != nil {
			return nil, fmt.Errorf("replica %q: %w", c.ID, err)
		}
		r.log = log
	}
	r.writing = r.log.Writing
	if err := c.Metrics.Register(newCollector(r)); err != nil {
		return nil, fmt.Errorf("replica %q: %w", c.ID, errors.Join(err, r.log.Close()))
	}
	return r, nil
}

// Run takes part until ctx is done, then stops and returns nil; or it returns [ErrDisk], [ErrRemoved], [ErrDiverged]
// or what kept it from starting.
func (r *Replica) Run(ctx context.Context) error {
	connections, stop := context.WithCancel(context.WithoutCancel(ctx)) // raft needs them a little longer than ctx
	defer stop()
	layer := link.New(connections, r.config.link())
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, Timeout: raftIOTimeout, Logger: newHCLog(r.config.Log),
		// No pipelining: when a follower rejects entries or knows a newer term, the pipeline's sender and decoder can
		// wait for each other for ever (hashicorp/raft issue 612). Then the follower gets no more entries and
		// heartbeats hide it, and a deposed leader never stops.
		MaxRPCsInFlight: 1,
	})
	node, fresh, err := r.start(transport)
	if err != nil {
		stop()
		return fmt.Errorf("replica %q: %w", r.config.ID, errors.Join(err, transport.Close(), r.log.Close()))
	}
	r.layer.Store(layer)
	r.node.Store(node)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(layer.Serve)
	group.Go(func() error { return r.watchDisk(ctx, layer) })
	group.Go(func() error { return r.watchRemoval(ctx, node) })
	group.Go(func() error { return r.closeRemoved(ctx, layer) })
	group.Go(func() error { return r.sumUp(ctx) })
	group.Go(func() error { return r.compare(ctx) })
	group.Go(func() error { return r.becomeReady(ctx, fresh) })
	<-ctx.Done()
	if r.writing() > r.config.HandOverAfter {
		stop()
		layer.Close()
		return fmt.Errorf("replica %q: %w", r.config.ID, ErrDisk) // stopping raft would wait for the disk
	}
	r.handOver(node)
	stopped := errors.Join(node.Shutdown().Error(), transport.Close())
	stop()
	layer.CloseAll()
	if err := group.Wait(); err != nil {
		stopped = errors.Join(err, stopped)
	}
	if stopped = errors.Join(stopped, r.log.Close()); stopped != nil {
		return fmt.Errorf("replica %q: %w", r.config.ID, stopped)
	}
	return nil
}

// handOver lets another replica lead before this one stops, so that nobody waits for an election.
func (r *Replica) handOver(node *raft.Raft) {
	if node.State() != raft.Leader {
		return
	}
	if err := node.LeadershipTransfer().Error(); err != nil {
		r.config.Log.Info("leadership is not handed over", "err", err)
	}
}

// start makes the raft node; fresh tells that there was no state.
func (r *Replica) start(transport raft.Transport) (node *raft.Raft, fresh bool, err error) {
	var snapshots raft.SnapshotStore = raft.NewInmemSnapshotStore()
	if !r.config.InMemory {
		if snapshots, err = disk.OpenSnapshots(r.config.DataDir, newHCLog(r.config.Log)); err != nil {
			return nil, false, err
		}
	}
	config := r.config.raft()
	if err := dropCovered(r.log, snapshots); err != nil {
		return nil, false, err
	}
	known, err := raft.HasExistingState(r.log, r.log, snapshots)
	if err != nil {
		return nil, false, err
	}
	if !known && r.config.Bootstrap {
		initial, err := r.config.configuration()
		if err != nil {
			return nil, false, err
		}
		if err := raft.BootstrapCluster(config, r.log, r.log, snapshots, transport, initial); err != nil {
			return nil, false, fmt.Errorf("bootstrap: %w", err)
		}
	}
	cache, err := raft.NewLogCache(512, r.log)
	if err != nil {
		return nil, false, err
	}
	node, err = raft.NewRaft(config, r.fsm, cache, r.log, snapshots, transport)
	return node, !known, err
}

// dropCovered empties a log that ends before the newest snapshot: the process died between taking the leader's snapshot
// and dropping the log. What comes next follows the snapshot and would leave a gap in the log.
func dropCovered(log *disk.Log, snapshots raft.SnapshotStore) error {
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return err
	}
	first, err1 := log.FirstIndex()
	last, err2 := log.LastIndex()
	if err := errors.Join(err1, err2); err != nil || last == 0 || last >= list[0].Index {
		return err
	}
	return log.DeleteRange(first, last)
}

// becomeReady joins if it must, and marks the store ready once it reflects everything that was committed before.
func (r *Replica) becomeReady(ctx context.Context, fresh bool) error {
	for fresh && r.config.Join != "" && !r.member(r.config.ID) { // a member whose answer was lost does not ask again
		err := r.askToJoin(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if status.Code(err) == codes.InvalidArgument {
			return fmt.Errorf("join: %s", status.Convert(err).Message())
		}
		r.config.Log.Warn("joining the mesh: will try again", "peer", r.config.Join, "err", err)
		sleep(ctx, time.Second)
	}
	for ctx.Err() == nil {
		if r.Barrier(ctx) == nil {
			r.config.Store.MarkReady()
			r.config.Log.Info("state is complete", "revision", r.fsm.applied.Latest())
			return nil
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return nil
}

// Barrier returns once the store reflects every command that was acknowledged before the call.
func (r *Replica) Barrier(ctx context.Context) error {
	result, err := r.Propose(ctx, &pb.Command{})
	if err != nil {
		return err
	}
	return r.fsm.waitApplied(ctx, result.GetIndex())
}

// watchDisk falls silent, and in the end gives up, while a write to the log does not end.
func (r *Replica) watchDisk(ctx context.Context, layer *link.Layer) error {
	for sleep(ctx, 100*time.Millisecond) {
		writing, silent := r.writing(), layer.Silent()
		switch {
		case writing > r.config.ExitAfter:
			return ErrDisk
		case writing > r.config.HandOverAfter && !silent:
			r.config.Log.Error("disk hangs: this replica falls silent so that others take over", "writing", writing)
			layer.SetSilent(true)
		case writing == 0 && silent:
			r.config.Log.Info("disk is back: this replica speaks again")
			layer.SetSilent(false)
		}
	}
	return nil
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
