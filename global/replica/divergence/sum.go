package divergence

import (
	"encoding/binary"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// Sum adds up the digests of all objects of a state, in which order they came about notwithstanding. The zero Sum is of the
// empty state. Not safe for concurrent use.
type Sum struct {
	of    *mesh.Snapshot
	value uint64
}

// Advance makes it the sum of the snapshot, which may but need not descend from the one before, and returns it. A changed
// object costs about 5 us, one that did not change nothing.
func (s *Sum) Advance(to *mesh.Snapshot) uint64 {
	from := s.of
	if from == nil {
		from = mesh.Empty
	}
	for _, change := range mesh.Diff(from, to) {
		if change.Old != nil {
			s.value -= digest(change.Old)
		}
		if change.New != nil {
			s.value += digest(change.New)
		}
	}
	s.of = to
	return s.value
}

func digest(o mesh.Object) uint64 {
	d := meshpb.Digest(o)
	return binary.BigEndian.Uint64(d[:])
}
