package replica

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica/divergence"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// share has every replica tell the others what it sums up, as objects with so numbered fields.
func (p *plane) share(schema uint64) {
	p.t.Helper()
	for id, n := range p.nodes {
		index, sum := n.StateSum()
		for other := range p.nodes {
			if other == id {
				continue
			}
			client, err := n.Replica.dial(p.t.Context(), other, raft.ServerAddress(p.members[other].Address.String()))
			if err != nil {
				p.t.Fatal(err)
			}
			o := &pb.Observations{StateIndex: index, StateSum: sum, StateSchema: schema}
			if _, err := client.Share(p.t.Context(), o); err != nil && schema != meshpb.Schema() {
				p.t.Fatal(err)
			}
		}
	}
}

// sums are what the replicas sum up.
func (p *plane) sums() map[divergence.Point]bool {
	sums := make(map[divergence.Point]bool)
	for _, n := range p.nodes {
		index, sum := n.StateSum()
		sums[divergence.Point{Index: index, Sum: sum}] = true
	}
	return sums
}

// nobodyDiffers: no replica has found that another's state is not its own.
func (p *plane) nobodyDiffers(when string) {
	p.t.Helper()
	for id, n := range p.nodes {
		if v := n.jury.Verdict([]string{"a", "b", "c"}); len(v.Differ) > 0 {
			p.t.Errorf("%s, replica %s: %v", when, id, v)
		}
	}
}

// storm proposes so many commands, together.
func (p *plane) storm(id string, commands int) {
	p.t.Helper()
	var group sync.WaitGroup
	for worker := range 100 {
		group.Go(func() {
			for i := range commands / 100 {
				if _, err := p.nodes[id].Propose(p.t.Context(), put(gateway("a", fmt.Sprint("g", worker), i+1))); err != nil {
					p.t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// F9: a replica whose state was changed by something else than the log is found, and ends.
func TestDivergedReplicaEnds(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, nil)
	}
	for _, n := range p.nodes {
		<-n.store.Ready()
	}
	p.storm("a", 1200)
	eventually(t, "all replicas summed up the same", func() bool { return len(p.sums()) == 1 && !p.sums()[divergence.Point{}] })
	p.share(meshpb.Schema())
	p.nobodyDiffers("equal states")
	wrong := p.follower()
	store := p.nodes[wrong].store
	now := latest(store)
	var objects []mesh.Object
	for _, o := range now.All() {
		objects = append(objects, o)
	}
	store.Restore(now.Revision(), append(objects[1:], &mesh.Cursor{Cluster: "never-agreed"}))
	p.storm("a", 1200)
	eventually(t, "the wrong one summed up another", func() bool {
		sums := p.sums()
		for point := range sums {
			for other := range sums {
				if point.Index == other.Index && point != other {
					return true
				}
			}
		}
		return false
	})
	p.share(meshpb.Schema() + 1)
	p.nobodyDiffers("replicas of another version, whose objects have other fields")
	ended := make(chan error, 1)
	go func() { ended <- <-p.nodes[wrong].ended }()
	var err error
	eventually(t, "the wrong one ends", func() bool {
		p.share(meshpb.Schema())
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	if !errors.Is(err, ErrDiverged) {
		t.Errorf("it ended with %v", err)
	}
	p.nodes[wrong].ended <- nil
	p.stop(wrong)
	p.write(p.follower(), 1)
}

// Milestones are the same states however raft cuts the batches, and after a restart from a snapshot.
func TestMilestonesDoNotDependOnBatches(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := newFSM(), newFSM()
		var batch []*raft.Log
		index := uint64(rapid.IntRange(1, 2*compareEvery).Draw(rt, "from"))
		for i, command := range commands(rt) {
			index += uint64(rapid.SampledFrom([]int{1, 1, 3, compareEvery / 2, 2 * compareEvery}).Draw(rt, "step"))
			data, _ := proto.Marshal(command)
			entry := &raft.Log{Index: index, Type: raft.LogCommand, Data: data}
			a.Apply(entry)
			if batch = append(batch, entry); i%5 == 4 {
				b.ApplyBatch(batch)
				batch = nil
				x, y := a.milestones.Latest(), b.milestones.Latest()
				if x.index != y.index || x.snapshot != nil && digest(x.snapshot) != digest(y.snapshot) {
					rt.Fatalf("milestones %d and %d, or other states", x.index, y.index)
				}
				if rapid.Bool().Draw(rt, "restart") {
					restored := newFSM()
					if err := restored.Restore(persisted(t, b)); err != nil {
						rt.Fatal(err)
					}
					restored.milestones.Set(b.milestones.Latest())
					b = restored
				}
			}
		}
	})
}
