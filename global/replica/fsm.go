package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica/disk"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// fsm is raft's view of the store. Raft calls it from one goroutine.
type fsm struct {
	store   *mesh.Store
	applied watch.Value[uint64] // index of the newest command that the store reflects
	// milestones are the newest state to compare with other replicas.
	milestones watch.Value[milestone]
	recent     recent
	ready      prepared
}

// Apply is ApplyBatch of one entry.
func (f *fsm) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch returns for each entry a *pb.CommandResult, or an error if the command is malformed; then it has changed
// nothing. The store is committed to once, at the index of the last entry that changed something, and before a milestone:
// which versions in between exist depends on how raft cut the batches, what the state is at an index does not.
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	now, _ := f.store.Latest()
	next := newOverlay(now)
	results := make([]any, len(entries))
	last := f.applied.Latest()
	for i, entry := range entries {
		if entry.Index/compareEvery > last/compareEvery {
			next = f.commit(next)
			f.milestones.Set(milestone{entry.Index / compareEvery * compareEvery, next.base})
		}
		last = max(last, entry.Index)
		if entry.Type != raft.LogCommand {
			continue // a configuration, which is raft's own
		}
		result, err := f.apply(next, entry)
		if results[i] = result; err != nil {
			results[i] = fmt.Errorf("entry %d: %w", entry.Index, err)
		}
	}
	f.commit(next)
	f.applied.Set(last)
	return results
}

// commit makes the changes a version, if there are any, and returns an overlay without changes.
func (f *fsm) commit(o *overlay) *overlay {
	if o.revision == o.base.Revision() {
		return o
	}
	return newOverlay(f.store.Commit(o.revision, o.delta()))
}

// apply is the whole meaning of an entry, the same on every replica: of the state before it and the recent results.
func (f *fsm) apply(next *overlay, entry *raft.Log) (*pb.CommandResult, error) {
	if entry.Index <= uint64(next.revision) {
		return nil, errors.New("is already applied")
	}
	c, err := f.ready.command(entry.Data)
	if err != nil {
		return nil, err
	}
	if result, ok := f.recent.result(c.id); ok {
		return result, nil
	}
	result := &pb.CommandResult{Index: entry.Index, Applied: next.step(c)}
	if next.touched {
		next.revision, next.touched = mesh.Revision(entry.Index), false
	}
	f.recent.add(c.id, result)
	return result, nil
}

// waitApplied returns once the store reflects index, or ctx is done.
func (f *fsm) waitApplied(ctx context.Context, index uint64) error {
	for {
		applied, next := f.applied.Get()
		if applied >= index {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Snapshot captures a pointer and the few recent results; Persist writes them later, off raft's loop.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	now, _ := f.store.Latest()
	return &capture{now, f.recent.all()}, nil
}

// Restore replaces the state. On error the state is untouched.
func (f *fsm) Restore(stream io.ReadCloser) error {
	defer stream.Close()
	revision, objects, results, err := disk.ReadSnapshot(stream)
	if err != nil {
		return err
	}
	f.recent = recent{}
	applied := uint64(revision) // of the newest change; commands that changed nothing may have come after it
	for _, r := range results {
		f.recent.add(r.ID, r.Result)
		applied = max(applied, r.Result.GetIndex())
	}
	f.store.Restore(revision, objects)
	f.applied.Set(applied)
	return nil
}

type capture struct {
	snapshot *mesh.Snapshot
	recent   []disk.Remembered
}

func (c *capture) Persist(sink raft.SnapshotSink) error {
	if err := disk.WriteSnapshot(sink, c.snapshot, c.recent); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (c *capture) Release() {}

// overlay is a snapshot with changes that are not committed yet.
type overlay struct {
	base     *mesh.Snapshot
	revision mesh.Revision            // of the newest change
	touched  bool                     // something changed since revision
	changed  map[mesh.Key]mesh.Object // nil: deleted
	order    []mesh.Key
}

func newOverlay(base *mesh.Snapshot) *overlay {
	return &overlay{base: base, revision: base.Revision(), changed: make(map[mesh.Key]mesh.Object)}
}

// step applies the parts in order, so that a later part sees what an earlier one did, and tells whose guards held.
func (o *overlay) step(c *command) (held []bool) {
	for _, p := range c.parts {
		holds := o.holds(p.guards)
		if holds {
			o.apply(p)
		}
		held = append(held, holds)
	}
	return held
}

func (o *overlay) get(key mesh.Key) (mesh.Object, bool) {
	if object, ok := o.changed[key]; ok {
		return object, object != nil
	}
	return o.base.Get(key)
}

func (o *overlay) set(key mesh.Key, object mesh.Object) {
	if _, ok := o.changed[key]; !ok {
		o.order = append(o.order, key)
	}
	o.changed[key], o.touched = object, true
}

func (o *overlay) holds(guards []*pb.Guard) bool {
	for _, guard := range guards {
		switch g := guard.GetGuard().(type) {
		case *pb.Guard_Key:
			if !o.holdsKey(g.Key) {
				return false
			}
		case *pb.Guard_Newer:
			object, _ := o.get(mesh.CursorKey(mesh.ClusterID(g.Newer.GetCluster())))
			if have, ok := object.(*mesh.Cursor); ok && !meshpb.DecodeCursor(g.Newer).Newer(*have) {
				return false
			}
		}
	}
	return true
}

func (o *overlay) holdsKey(g *pb.KeyGuard) bool {
	object, ok := o.get(mesh.Key(g.GetKey()))
	if !ok || len(g.GetDigest()) != meshpb.DigestBytes {
		return !ok && len(g.GetDigest()) == 0
	}
	have, want := meshpb.Digest(object), g.GetDigest()
	return binary.BigEndian.Uint64(have[:]) == binary.BigEndian.Uint64(want)
}

func (o *overlay) apply(p part) {
	if len(o.changed) == 0 { // a large part would have it grow many times
		o.changed = make(map[mesh.Key]mesh.Object, len(p.upserts))
		o.order = make([]mesh.Key, 0, len(p.upserts))
	}
	for _, key := range p.deletes {
		if _, ok := o.get(mesh.Key(key)); ok {
			o.set(mesh.Key(key), nil)
		}
	}
	for _, object := range p.upserts {
		o.set(object.Key(), object)
	}
}

// delta is what differs from the base.
func (o *overlay) delta() (d mesh.Delta) {
	for _, key := range o.order {
		if object := o.changed[key]; object != nil {
			d.Upserts = append(d.Upserts, object)
		} else {
			d.Deletes = append(d.Deletes, key) // of what the base may not have, which is no change
		}
	}
	return d
}
