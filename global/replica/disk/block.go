package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A segment is an array of blocks. A frame is a run of blocks with the same number, all full but the last; it begins a
// block, so that a block is never written again once its frame is acknowledged. Integers are big-endian.
//
//	block: CRC32C u32 | frame's number in the segment, from 1, u32 | bytes used u16, top bit: last of the frame | payload | zeros
//
// The checksum covers the segment's number and the block's as well, so that a misplaced block is seen.
const (
	blockBytes   = 512 // a disk writes so much whole or not at all
	blockHead    = 4 + 4 + 2
	blockPayload = blockBytes - blockHead
	lastOfFrame  = 1 << 15
)

// block is one that was read. Frame 0: nothing was written there.
type block struct {
	frame   uint32
	last    bool
	payload []byte // shares memory with what it was read from
}

// blockCount is how many blocks a payload takes.
func blockCount(payloadBytes int) int { return (payloadBytes + blockPayload - 1) / blockPayload }

func blockSum(segment uint64, at int, data []byte) uint32 {
	where := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(make([]byte, 0, 12), segment), uint32(at))
	return crc32.Update(crc32.Checksum(where, castagnoli), castagnoli, data[4:blockBytes])
}

// encodeFrame makes the blocks of a frame that begins at block at.
func encodeFrame(segment uint64, at int, number uint32, payload []byte) []byte {
	count := blockCount(len(payload))
	out := make([]byte, count*blockBytes)
	for i := range count {
		data := out[i*blockBytes : (i+1)*blockBytes]
		used := copy(data[blockHead:], payload)
		if payload = payload[used:]; len(payload) == 0 {
			used |= lastOfFrame
		}
		binary.BigEndian.PutUint32(data[4:], number)
		binary.BigEndian.PutUint16(data[8:], uint16(used))
		binary.BigEndian.PutUint32(data, blockSum(segment, at+i, data))
	}
	return out
}

// decodeBlock reads the block at, which is the first in data.
func decodeBlock(segment uint64, at int, data []byte) (block, error) {
	if [blockBytes]byte(data) == [blockBytes]byte{} {
		return block{}, nil
	}
	frame, used := binary.BigEndian.Uint32(data[4:]), int(binary.BigEndian.Uint16(data[8:]))
	last := used&lastOfFrame != 0
	used &^= lastOfFrame
	if binary.BigEndian.Uint32(data) != blockSum(segment, at, data) || frame == 0 || used > blockPayload || !last && used != blockPayload {
		return block{}, fmt.Errorf("block %d: %w", at, ErrCorrupt)
	}
	return block{frame, last, data[blockHead : blockHead+used]}, nil
}

// extent is how far a segment is written, in blocks.
type extent struct {
	frames uint32 // that are complete
	last   int    // where the last of them begins
	used   int    // where it ends, and the next begins
	end    int    // of what is not zero: beyond used there is what power loss left of a write
}

// scan checks every block of a segment and yields the complete frames. Behind them there may be nothing but some blocks
// of one more.
func scan(segment uint64, data []byte, yield func(at int, payload []byte) error) (e extent, err error) {
	if len(data)%blockBytes != 0 {
		return e, fmt.Errorf("%d bytes: %w", len(data), ErrCorrupt)
	}
	var payload []byte
	torn := false // the frame to come lacks a block
	for at := range len(data) / blockBytes {
		b, err := decodeBlock(segment, at, data[at*blockBytes:])
		switch {
		case err != nil:
			return e, err
		case b.frame == 0:
			torn = true
			continue
		case b.frame != e.frames+1:
			return e, fmt.Errorf("block %d is of frame %d, behind %d: %w", at, b.frame, e.frames, ErrCorrupt)
		}
		if e.end = at + 1; torn {
			continue
		}
		payload = append(payload, b.payload...)
		if b.last {
			if err := yield(e.used, payload); err != nil {
				return e, fmt.Errorf("frame at block %d: %w", e.used, err)
			}
			e, payload = extent{e.frames + 1, e.used, at + 1, at + 1}, payload[:0]
		}
	}
	if e.frames == 0 {
		return e, fmt.Errorf("no head: %w", ErrCorrupt)
	}
	return e, nil
}
