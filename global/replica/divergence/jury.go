package divergence

import (
	"fmt"
	"slices"
	"sync"
)

// kept is how many own sums are remembered: others may be late by as many.
const kept = 64

// Point is the sum of a replica's state at an index. A zero Index means none.
type Point struct{ Index, Sum uint64 }

// Verdict is what is known of the states.
type Verdict struct {
	// Differ are the replicas whose sum at an index is not this one's, sorted.
	Differ []string
	// Wrong says that this replica is: most of all replicas agree on another sum.
	Wrong bool
	Index uint64 // where
}

// String is for logs.
func (v Verdict) String() string {
	return fmt.Sprintf("state at index %d differs from that of %v", v.Index, v.Differ)
}

// Jury compares. The zero Jury is ready to use, by several goroutines.
type Jury struct {
	mu     sync.Mutex
	own    []Point          // guarded by mu; the newest last
	others map[string]Point // guarded by mu; the newest of each
}

// Own records a sum of this replica. Indexes rise.
func (j *Jury) Own(p Point) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.own = append(j.own[max(0, len(j.own)-kept+1):], p)
}

// Newest is what other replicas are told.
func (j *Jury) Newest() Point {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.own) == 0 {
		return Point{}
	}
	return j.own[len(j.own)-1]
}

// Heard records what another replica said; a zero point: that it has none (any more).
func (j *Jury) Heard(replica string, p Point) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.others == nil {
		j.others = make(map[string]Point)
	}
	if j.others[replica] = p; p.Index == 0 {
		delete(j.others, replica)
	}
}

// Verdict judges by what was said by these members, this replica among them.
func (j *Jury) Verdict(members []string) (v Verdict) {
	j.mu.Lock()
	defer j.mu.Unlock()
	agree := make(map[Point]int) // on what is not this replica's
	for _, id := range members {
		said, ok := j.others[id]
		at := slices.IndexFunc(j.own, func(p Point) bool { return p.Index == said.Index })
		if !ok || at < 0 || j.own[at] == said {
			continue
		}
		v.Differ, v.Index = append(v.Differ, id), max(v.Index, said.Index)
		if agree[said]++; 2*agree[said] > len(members) {
			v.Wrong = true
		}
	}
	slices.Sort(v.Differ)
	return v
}
