package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
)

// state is what a log holds, without the content of its entries. Only frames change it, whether they were just written
// or are read again: a log that was opened again is the one that was closed.
type state struct {
	first, next uint64  // indexes; both 0 when there are no entries
	places      []place // of the entries before next; of all of them once everything is read
	current     uint64  // the segment whose frames are applied; 0 before the first
	continued   bool    // the segment has ended
}

// place is where an entry is.
type place struct {
	segment uint64
	frame   int // the block where its frame begins
	offset  int // in the frame's payload
	length  int
}

// head is the payload of a segment's first frame. It makes the segments before it dispensable.
func (s *state) head(segment uint64, blocks int) []byte {
	out := binary.BigEndian.AppendUint32(append([]byte{headFrame}, logMagic...), logFormat)
	out = binary.BigEndian.AppendUint64(out, segment)
	out = binary.BigEndian.AppendUint32(out, uint32(blocks))
	out = binary.BigEndian.AppendUint64(out, s.first)
	return binary.BigEndian.AppendUint64(out, s.next)
}

// begin applies the head of a segment. The first that is read says what was before it, the others must agree.
func (s *state) begin(segment uint64, blocks int, head []byte) error {
	if s.current == 0 {
		c := cursor{rest: head}
		magic := c.take(1 + len(logMagic))
		if format := c.uint(4); string(magic) == string(headFrame)+logMagic && format != logFormat {
			return fmt.Errorf("format %d; this version reads %d: upgrade this replica", format, logFormat)
		}
		c.take(8 + 4)
		s.first, s.next = c.uint(8), c.uint(8)
	} else if segment != s.current+1 || !s.continued {
		return fmt.Errorf("segment %d follows %d: %w", segment, s.current, ErrCorrupt)
	}
	if !bytes.Equal(head, s.head(segment, blocks)) || s.first > s.next || s.first == 0 && s.next != 0 {
		return fmt.Errorf("head of segment %d: %w", segment, ErrCorrupt)
	}
	s.current, s.continued = segment, false
	return nil
}

// apply changes the state by what a frame says that begins at block at.
func (s *state) apply(at int, payload []byte) error {
	c := cursor{rest: payload}
	kind := byte(c.uint(1))
	ok := !s.continued
	switch kind {
	case entriesFrame:
		for len(c.rest) > 0 {
			entry := c.field()
			if err := s.append(entry, place{s.current, at, len(payload) - len(c.rest) - len(entry), len(entry)}); err != nil {
				return err
			}
		}
	case deletedFrame:
		ok = ok && s.delete(c.uint(8), c.uint(8))
	case continuedFrame:
		s.continued = true
	default:
		ok = false
	}
	if !ok || c.short || len(c.rest) > 0 {
		return fmt.Errorf("frame of kind %d: %w", kind, ErrCorrupt)
	}
	return nil
}

// append adds the next entry. An empty log begins with any.
func (s *state) append(data []byte, at place) error {
	index := s.next
	if index == 0 {
		c := cursor{rest: data}
		index = c.uint(8)
		s.first = index
	}
	var entry raft.Log
	if err := decodeEntry(index, data, &entry); err != nil {
		return err
	}
	if index == 0 {
		return fmt.Errorf("entry 0: %w", ErrCorrupt)
	}
	s.next, s.places = index+1, append(s.places, at)
	return nil
}

// delete forgets a beginning or an end of the log; false if it is neither.
func (s *state) delete(from, to uint64) bool {
	if from < s.first || from > to || to >= s.next || from > s.first && to < s.next-1 {
		return false
	}
	known := s.next - uint64(len(s.places)) // the first whose place is known
	switch {
	case from > s.first:
		s.next, s.places = from, s.places[:max(from, known)-known]
	case to < s.next-1:
		s.first, s.places = to+1, s.places[max(to+1, known)-known:]
	default:
		s.first, s.next, s.places = 0, 0, nil
	}
	return true
}

// complete tells whether every entry was found.
func (s *state) complete() error {
	if missing := s.next - s.first - uint64(len(s.places)); missing > 0 {
		return fmt.Errorf("entries %d..%d are not there: %w", s.first, s.first+missing-1, ErrCorrupt)
	}
	if s.continued {
		return fmt.Errorf("what follows segment %d is not there: %w", s.current, ErrCorrupt)
	}
	return nil
}
