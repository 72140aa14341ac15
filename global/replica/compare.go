package replica

import (
	"context"
	"time"

	"github.com/periplus-mesh/periplus/global/replica/divergence"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// compareEvery is the number of log indexes from one state that is compared to the next.
const compareEvery = 1000

// milestone is the state before the first entry at or after index, which every replica has had.
type milestone struct {
	index    uint64
	snapshot *mesh.Snapshot
}

// rest is for how many times as long as a sum took none is begun: it is to cost a twentieth of a core at most.
const rest = 19

// sumUp follows the milestones. Under load it skips some, and others than the other replicas; when it is quiet again they
// all sum up the last.
func (r *Replica) sumUp(ctx context.Context) error {
	var sum divergence.Sum
	for {
		m, next := r.fsm.milestones.Get()
		if m.snapshot != nil {
			began := time.Now()
			r.jury.Own(divergence.Point{Index: m.index, Sum: sum.Advance(m.snapshot)})
			sleep(ctx, rest*time.Since(began))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

// StateSum is what the state summed up to at the newest index that was compared; 0, 0 before the first.
func (r *Replica) StateSum() (index, sum uint64) {
	p := r.jury.Newest()
	return p.Index, p.Sum
}

// compare tells people of replicas that differ, and returns [ErrDiverged] when this is the one that is wrong: it must not
// serve what nobody agreed on.
func (r *Replica) compare(ctx context.Context) error {
	var told uint64 // the index of the last alarm
	for sleep(ctx, time.Second) {
		var members []string
		for _, m := range r.Members() {
			members = append(members, m.ID)
		}
		v := r.jury.Verdict(members)
		r.differ.Store(int64(len(v.Differ)))
		if v.Index > told {
			told = v.Index
			r.config.Log.Error("replicas differ", "err", v.String(), "wrong", v.Wrong)
		}
		if v.Wrong {
			return ErrDiverged
		}
	}
	return nil
}
