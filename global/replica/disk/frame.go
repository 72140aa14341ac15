package disk

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// A frame's payload is its kind and what the kind says:
//
//	head:      "PERIPLUS" | format u32 | segment u64 | blocks u32 | first index u64 | next index u64
//	entries:   (length u32 | entry)*
//	deleted:   from u64 | to u64: a beginning or an end of the log, both inclusive
//	continued: nothing; the log goes on in the next segment
//
//	entry: index u64 | term u64 | type u8 | appended i64, ns since 1970 | length of extensions u32 | extensions | data
//
// First and next index are 0 when there are no entries.
const (
	headFrame byte = 1 + iota
	entriesFrame
	deletedFrame
	continuedFrame
)

const (
	logMagic  = "PERIPLUS"
	logFormat = 1
	entryHead = 8 + 8 + 1 + 8 + 4
)

func encodeEntries(entries []*raft.Log) []byte {
	size := 1
	for _, entry := range entries {
		size += 4 + entryHead + len(entry.Extensions) + len(entry.Data)
	}
	out := append(make([]byte, 0, size), entriesFrame)
	for _, entry := range entries {
		out = binary.BigEndian.AppendUint32(out, uint32(entryHead+len(entry.Extensions)+len(entry.Data)))
		out = binary.BigEndian.AppendUint64(out, entry.Index)
		out = binary.BigEndian.AppendUint64(out, entry.Term)
		out = append(out, byte(entry.Type))
		var appended int64
		if !entry.AppendedAt.IsZero() {
			appended = entry.AppendedAt.UnixNano()
		}
		out = binary.BigEndian.AppendUint64(out, uint64(appended))
		out = appendField(out, entry.Extensions)
		out = append(out, entry.Data...)
	}
	return out
}

// decodeEntry wants the entry of this index. The result shares memory with data.
func decodeEntry(index uint64, data []byte, out *raft.Log) error {
	c := cursor{rest: data}
	*out = raft.Log{Index: c.uint(8), Term: c.uint(8), Type: raft.LogType(c.uint(1))}
	if appended := int64(c.uint(8)); appended != 0 {
		out.AppendedAt = time.Unix(0, appended)
	}
	if extensions := c.field(); len(extensions) > 0 {
		out.Extensions = extensions
	}
	if out.Data = c.rest; c.short || out.Index != index {
		return fmt.Errorf("entry %d stands where %d should, or is cut short: %w", out.Index, index, ErrCorrupt)
	}
	return nil
}

func encodeDeleted(from, to uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{deletedFrame}, from), to)
}

func appendField(out, field []byte) []byte {
	return append(binary.BigEndian.AppendUint32(out, uint32(len(field))), field...)
}

// cursor takes a payload apart. When something is not there, short is set and nothing is left.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	out := c.rest[:n:n]
	c.rest = c.rest[n:]
	return out
}

// uint is an integer of n bytes, 0 if it is not there.
func (c *cursor) uint(n int) (out uint64) {
	for _, b := range c.take(n) {
		out = out<<8 | uint64(b)
	}
	return out
}

// field is what has its length before it.
func (c *cursor) field() []byte { return c.take(int(c.uint(4))) }
