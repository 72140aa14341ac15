package mesh

import (
	"fmt"
	"sync"

	"github.com/periplus-mesh/periplus/internal/pmap"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// Delta is a step from one snapshot to the next. A key that is in both lists is upserted.
type Delta struct {
	Upserts []Object
	Deletes []Key
}

// Store holds the current snapshot. The zero Store is empty, not ready, and must not be copied.
type Store struct {
	mu     sync.Mutex // orders writers
	latest watch.Value[*Snapshot]
	once   sync.Once
	ready  chan struct{}
}

// Latest returns the current snapshot, never nil, and a channel that closes when it is superseded.
func (s *Store) Latest() (*Snapshot, <-chan struct{}) {
	snapshot, next := s.latest.Get()
	if snapshot == nil {
		snapshot = Empty
	}
	return snapshot, next
}

// Commit makes the next snapshot, at revision r. Upserts whose object is the very one stored are no change.
// It panics if r does not rise: then history would be rewritten.
func (s *Store) Commit(r Revision, d Delta) *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, _ := s.Latest()
	if r <= old.revision {
		panic(fmt.Sprintf("mesh: commit of revision %d onto %d", r, old.revision))
	}
	return s.commit(r, old.objects, d)
}

// Update is Commit for a store that counts its own revisions (an agent's).
func (s *Store) Update(d Delta) *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, _ := s.Latest()
	return s.commit(old.revision+1, old.objects, d)
}

// Restore replaces everything by the objects, at revision r, which may be lower than the current one (raft
// restores a snapshot into a fresh state).
func (s *Store) Restore(r Revision, objects []Object) *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(r, pmap.Map[Object]{}, Delta{Upserts: objects})
}

func (s *Store) commit(r Revision, objects pmap.Map[Object], d Delta) *Snapshot {
	for _, key := range d.Deletes {
		objects = objects.Delete(string(key))
	}
	objects = objects.SetAll(func(yield func(string, Object) bool) {
		for _, object := range d.Upserts {
			if !yield(string(object.Key()), object) {
				return
			}
		}
	})
	snapshot := &Snapshot{revision: r, objects: objects}
	s.latest.Set(snapshot)
	return snapshot
}

// MarkReady says that every source has synced once: "not there" now means "does not exist". Idempotent.
func (s *Store) MarkReady() { s.once.Do(func() { close(s.readiness()) }) }

// Ready is closed by MarkReady. Nothing may be served before.
func (s *Store) Ready() <-chan struct{} { return s.readiness() }

// readiness makes the channel on first use, so that the zero Store works.
func (s *Store) readiness() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready == nil {
		s.ready = make(chan struct{})
	}
	return s.ready
}
