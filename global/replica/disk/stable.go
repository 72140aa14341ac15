package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// stable is raft's term and vote. Raft cannot go on without storing them, so they have their place from the start, and never
// need another: a file of two pages that are written in turn.
//
//	page: CRC32C u32 | generation u64 | (name, value)* | zeros
//
// All but the zeros is in a page's first block, which a disk writes whole or not at all; the pages are as far apart as a disk
// that writes more at once needs. The generation rises by one with each write, those of page i are i modulo 2: so both pages
// are known to be whole, and which of them is newer.
type stable struct {
	file *os.File // a write returns when it is on disk

	mu         sync.Mutex
	generation uint64
	values     map[string][]byte
	failed     error // nothing is written any more, for nobody knows what is on disk
}

const (
	stableFile = "stable"
	stablePage = 4096
	stableHead = 4 + 8
)

// errNoValue has the text that raft takes for "not stored yet".
var errNoValue = errors.New("not found")

// openStable opens the file, or makes it if it may be missing.
func openStable(path string, fresh bool) (*stable, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && fresh {
		data = append(encodeStable(0, nil), encodeStable(1, nil)...)
		err = durable.Write(path, data)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	s := new(stable)
	if s.generation, s.values, err = decodeStable(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.file, err = os.OpenFile(path, os.O_RDWR|syscall.O_DSYNC, 0); err != nil {
		return nil, err
	}
	// Who wrote it may have been killed before it was on disk.
	if err := s.write(s.generation, s.values); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

func (s *stable) write(generation uint64, values map[string][]byte) error {
	_, err := s.file.WriteAt(encodeStable(generation, values)[:blockBytes], int64(generation%2)*stablePage)
	return err
}

func encodeStable(generation uint64, values map[string][]byte) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 4, stablePage), generation)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = appendField(appendField(out, []byte(name)), values[name])
	}
	out = append(out, make([]byte, max(0, stablePage-len(out)))...)
	binary.BigEndian.PutUint32(out, crc32.Checksum(out[4:], castagnoli))
	return out
}

// decodeStable wants both pages as they were written.
func decodeStable(data []byte) (generation uint64, values map[string][]byte, err error) {
	if len(data) != 2*stablePage {
		return 0, nil, fmt.Errorf("%d bytes: %w", len(data), ErrCorrupt)
	}
	var generations [2]uint64
	for i := range generations {
		page := data[i*stablePage : (i+1)*stablePage]
		generations[i] = binary.BigEndian.Uint64(page[4:])
		if binary.BigEndian.Uint32(page) != crc32.Checksum(page[4:], castagnoli) || generations[i]%2 != uint64(i) {
			return 0, nil, fmt.Errorf("page %d: %w", i, ErrCorrupt)
		}
	}
	if generation = max(generations[0], generations[1]); generation != min(generations[0], generations[1])+1 {
		return 0, nil, fmt.Errorf("generations %d and %d: %w", generations[0], generations[1], ErrCorrupt)
	}
	at := int(generation%2) * stablePage
	c := cursor{rest: data[at+stableHead : at+blockBytes]}
	values = map[string][]byte{}
	for !c.short && len(bytes.TrimLeft(c.rest, "\x00")) > 0 {
		name := string(c.field())
		values[name] = bytes.Clone(c.field())
	}
	if c.short {
		return 0, nil, fmt.Errorf("page %d: %w", generation%2, ErrCorrupt)
	}
	return generation, values, nil
}

// Set refuses what does not fit into a block with the others.
func (s *stable) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	values := maps.Clone(s.values)
	values[string(key)] = bytes.Clone(value)
	size := stableHead
	for name, value := range values {
		size += 4 + len(name) + 4 + len(value)
	}
	if size > blockBytes || len(key) == 0 {
		return fmt.Errorf("log: value %q of %d bytes: all of them together have %d", key, len(value), blockBytes-stableHead)
	}
	if err := s.write(s.generation+1, values); err != nil {
		s.failed = failedWrite(s.file.Name(), err)
		return s.failed
	}
	s.generation, s.values = s.generation+1, values
	return nil
}

func (s *stable) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[string(key)]
	if !ok {
		return nil, errNoValue
	}
	return bytes.Clone(value), nil
}

func (s *stable) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s *stable) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("log: value %q of %d bytes: %w", key, len(value), ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value), nil
}
