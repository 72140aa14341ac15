package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// fsm is raft's view of the store. Raft calls it from one goroutine.
type fsm struct {
	store   *mesh.Store
	applied watch.Value[uint64] // index of the newest command that the store reflects
	recent  recent
}

// Apply returns a *pb.CommandResult, or an error if the command is malformed; then nothing has changed.
func (f *fsm) Apply(entry *raft.Log) any {
	defer f.applied.Set(entry.Index)
	now, _ := f.store.Latest()
	if entry.Index <= uint64(now.Revision()) {
		return fmt.Errorf("entry %d is already applied", entry.Index)
	}
	var command pb.Command
	if err := proto.Unmarshal(entry.Data, &command); err != nil {
		return fmt.Errorf("entry %d: command: %w", entry.Index, err)
	}
	if result, ok := f.recent.result(command.GetId()); ok {
		return result
	}
	result, delta, err := step(now, &command)
	if err != nil {
		return fmt.Errorf("entry %d: %w", entry.Index, err)
	}
	if len(delta.Upserts)+len(delta.Deletes) > 0 {
		f.store.Commit(mesh.Revision(entry.Index), delta)
	}
	result.Index = entry.Index
	f.recent.add(command.GetId(), result)
	return result
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
	revision, objects, results, err := readSnapshot(stream)
	if err != nil {
		return err
	}
	f.recent = recent{}
	for _, r := range results {
		f.recent.add(r.id, r.result)
	}
	f.store.Restore(revision, objects)
	f.applied.Set(uint64(revision))
	return nil
}

type capture struct {
	snapshot *mesh.Snapshot
	recent   []remembered
}

func (c *capture) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, c.snapshot, c.recent); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (c *capture) Release() {}

// step is the whole meaning of a command: pure, and the same on every replica. Parts are applied in order, and a
// later part sees what an earlier one did.
func step(now *mesh.Snapshot, command *pb.Command) (*pb.CommandResult, mesh.Delta, error) {
	parts, err := decodeParts(command)
	if err != nil {
		return nil, mesh.Delta{}, fmt.Errorf("command: %w", err)
	}
	next := overlay{base: now, changed: make(map[mesh.Key]mesh.Object)}
	result := &pb.CommandResult{}
	for _, p := range parts {
		holds := next.holds(p.guards)
		if holds {
			next.apply(p)
		}
		result.Applied = append(result.Applied, holds)
	}
	return result, next.delta(), nil
}

// part is a CommandPart that has been checked.
type part struct {
	guards  []*pb.Guard
	upserts []mesh.Object
	deletes []string
}

func decodeParts(command *pb.Command) ([]part, error) {
	parts := make([]part, 0, len(command.GetParts()))
	for i, p := range command.GetParts() {
		decoded := part{guards: p.GetGuards(), deletes: p.GetDeletes()}
		for _, guard := range decoded.guards {
			if guard.GetGuard() == nil {
				return nil, fmt.Errorf("part %d: guard missing or unknown", i)
			}
		}
		for _, o := range p.GetUpserts() {
			object, err := meshpb.Decode(o)
			if err != nil {
				return nil, fmt.Errorf("part %d: %w", i, err)
			}
			decoded.upserts = append(decoded.upserts, object)
		}
		parts = append(parts, decoded)
	}
	return parts, nil
}

// overlay is a snapshot with changes that are not committed yet.
type overlay struct {
	base    *mesh.Snapshot
	changed map[mesh.Key]mesh.Object // nil: deleted
	order   []mesh.Key
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
	o.changed[key] = object
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
	for _, key := range p.deletes {
		o.set(mesh.Key(key), nil)
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
		} else if _, ok := o.base.Get(key); ok {
			d.Deletes = append(d.Deletes, key)
		}
	}
	return d
}
