package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// A snapshot is a header, chunks of recent results, an empty chunk, chunks of objects, and an empty chunk. Integers
// are big-endian.
//
//	header: "PERIPLUS" | format u32 | schema u32 | revision u64 | objects u64 | CRC32C of these u32
//	chunk:  length u32 | CRC32C u32 | zstd of (uvarint length, marshalled message)*
//	message: periplus.v1.Object; a recent result is the command's id, then its marshalled CommandResult
//
// Format is the shape of this stream, schema the newest feature that the objects use; a reader refuses newer ones.
const (
	snapshotMagic  = "PERIPLUS"
	snapshotFormat = 1
	snapshotSchema = 1
	headerBytes    = 8 + 4 + 4 + 8 + 8 + 4
	chunkBytes     = 1 << 20  // uncompressed, give or take one object
	maxChunkBytes  = 64 << 20 // that a reader accepts, either way
)

// ErrCorrupt is returned for a log or snapshot whose checksum or order is wrong. The replica must be replaced.
var ErrCorrupt = errors.New("stored state is damaged; delete this replica's data folder and start it with --join")

// castagnoli is the polynomial of CRC32C; the table is never written.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Remembered is the result of a command that was applied lately, with the command's id.
type Remembered struct {
	ID     []byte
	Result *pb.CommandResult
}

// WriteSnapshot writes the state and the recent results, oldest first. Equal arguments give equal bytes.
func WriteSnapshot(w io.Writer, s *mesh.Snapshot, results []Remembered) error {
	if _, err := w.Write(encodeHeader(s)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	chunks, err := newChunkWriter(w)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer chunks.encoder.Close()
	for _, r := range results {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Result)
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		chunks.add(r.ID)
		chunks.add(data)
	}
	chunks.end()
	for _, object := range s.All() {
		chunks.add(meshpb.Marshal(object))
	}
	chunks.end()
	return chunks.err
}

// chunkWriter collects messages to chunks. After an error it does nothing.
type chunkWriter struct {
	w       io.Writer
	encoder *zstd.Encoder
	chunk   []byte
	err     error
}

func newChunkWriter(w io.Writer) (*chunkWriter, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return &chunkWriter{w: w, encoder: encoder}, err
}

func (c *chunkWriter) add(data []byte) {
	c.chunk = append(binary.AppendUvarint(c.chunk, uint64(len(data))), data...)
	if len(c.chunk) >= chunkBytes {
		c.flush()
	}
}

func (c *chunkWriter) flush() {
	if c.err == nil && len(c.chunk) > 0 {
		c.err = writeChunk(c.w, c.encoder.EncodeAll(c.chunk, nil))
	}
	c.chunk = c.chunk[:0]
}

func (c *chunkWriter) end() {
	if c.flush(); c.err == nil {
		c.err = writeChunk(c.w, nil)
	}
}

func encodeHeader(s *mesh.Snapshot) []byte {
	h := append(make([]byte, 0, headerBytes), snapshotMagic...)
	h = binary.BigEndian.AppendUint32(h, snapshotFormat)
	h = binary.BigEndian.AppendUint32(h, snapshotSchema)
	h = binary.BigEndian.AppendUint64(h, uint64(s.Revision()))
	h = binary.BigEndian.AppendUint64(h, uint64(s.Len()))
	return binary.BigEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

func writeChunk(w io.Writer, data []byte) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(data, castagnoli))
	if _, err := w.Write(append(head, data...)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// ReadSnapshot accepts a whole, undamaged snapshot and nothing else. Damage is [ErrCorrupt]; a newer format is not damage, but refused as well.
func ReadSnapshot(r io.Reader) (mesh.Revision, []mesh.Object, []Remembered, error) {
	revision, count, err := readHeader(r)
	if err != nil {
		return 0, nil, nil, err
	}
	expander, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunkBytes))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	defer expander.Close()
	var results []Remembered
	var id []byte
	err = readChunks(r, expander, func(data []byte) error {
		if id == nil {
			id = append([]byte{}, data...)
			return nil
		}
		result := new(pb.CommandResult)
		results, id = append(results, Remembered{id, result}), nil
		return proto.Unmarshal(data, result)
	})
	if err != nil {
		return 0, nil, nil, err
	}
	var objects []mesh.Object
	var decoder meshpb.Decoder
	err = readChunks(r, expander, func(data []byte) error {
		object, err := decoder.Unmarshal(data)
		objects = append(objects, object)
		return err
	})
	if err == nil && (id != nil || uint64(len(objects)) != count) {
		err = fmt.Errorf("snapshot: %d objects, its header says %d: %w", len(objects), count, ErrCorrupt)
	}
	return revision, objects, results, err
}

// readChunks yields every message up to the next empty chunk.
func readChunks(r io.Reader, expander *zstd.Decoder, yield func([]byte) error) error {
	for {
		chunk, err := readChunk(r)
		if err != nil || len(chunk) == 0 {
			return err
		}
		data, err := expander.DecodeAll(chunk, nil)
		if err != nil {
			return fmt.Errorf("snapshot: chunk: %w: %w", err, ErrCorrupt)
		}
		for len(data) > 0 {
			length, n := binary.Uvarint(data)
			if n <= 0 || length > uint64(len(data)-n) {
				return fmt.Errorf("snapshot: message: %w", ErrCorrupt)
			}
			if err := yield(data[n : n+int(length)]); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
			data = data[n+int(length):]
		}
	}
}

func readHeader(r io.Reader) (mesh.Revision, uint64, error) {
	h := make([]byte, headerBytes)
	if _, err := io.ReadFull(r, h); err != nil {
		return 0, 0, fmt.Errorf("snapshot: header: %w: %w", err, ErrCorrupt)
	}
	body, sum := h[:headerBytes-4], binary.BigEndian.Uint32(h[headerBytes-4:])
	if !bytes.HasPrefix(h, []byte(snapshotMagic)) || crc32.Checksum(body, castagnoli) != sum {
		return 0, 0, fmt.Errorf("snapshot: header: %w", ErrCorrupt)
	}
	format, schema := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
	if format != snapshotFormat || schema > snapshotSchema {
		return 0, 0, fmt.Errorf("snapshot: format %d, schema %d; this version reads %d and up to %d: upgrade this replica", format, schema, snapshotFormat, snapshotSchema)
	}
	return mesh.Revision(binary.BigEndian.Uint64(h[16:])), binary.BigEndian.Uint64(h[24:]), nil
}

func readChunk(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("snapshot: cut short: %w: %w", err, ErrCorrupt)
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > maxChunkBytes {
		return nil, fmt.Errorf("snapshot: chunk of %d bytes: %w", length, ErrCorrupt)
	}
	var data bytes.Buffer // grows with what is there, not with what the length claims
	if n, err := io.CopyN(&data, r, int64(length)); err != nil {
		return nil, fmt.Errorf("snapshot: chunk cut after %d of %d bytes: %w: %w", n, length, err, ErrCorrupt)
	}
	if crc32.Checksum(data.Bytes(), castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, fmt.Errorf("snapshot: chunk: %w", ErrCorrupt)
	}
	return data.Bytes(), nil
}
