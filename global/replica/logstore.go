package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

const crcBytes = 4

// checkedLog is a raft.LogStore and StableStore that adds a CRC32C to every entry and value, verifies it on every
// read, and knows how long the write in progress has lasted.
type checkedLog struct {
	store interface {
		raft.LogStore
		raft.StableStore
	}
	close func() error
	// writingSince is the start of the write in progress, as nanoseconds since epoch; 0 when there is none.
	writingSince atomic.Int64
	epoch        time.Time
}

// openLog opens dir/raft.db and reads every entry once. Damage is [ErrCorrupt].
func openLog(dir string) (log *checkedLog, err error) {
	// A damaged file can make bbolt follow a page number out of its mapping: turn that fault into an error, too.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if broken := recover(); broken != nil {
			log, err = nil, fmt.Errorf("log: %v: %w", broken, ErrCorrupt)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	store, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(dir, "raft.db"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: time.Second},
	})
	switch {
	case errors.Is(err, bbolt.ErrTimeout):
		return nil, fmt.Errorf("log: %s is in use by another process", dir)
	case errors.Is(err, bbolt.ErrInvalid) || errors.Is(err, bbolt.ErrChecksum) || errors.Is(err, bbolt.ErrVersionMismatch):
		return nil, fmt.Errorf("log: %w: %w", err, ErrCorrupt)
	case err != nil:
		return nil, fmt.Errorf("log: %w", err)
	}
	log = &checkedLog{store: store, close: store.Close, epoch: time.Now()}
	if err := log.verify(); err != nil {
		return nil, errors.Join(err, log.close())
	}
	return log, nil
}

// memoryLog keeps everything in memory.
func memoryLog() *checkedLog {
	return &checkedLog{store: raft.NewInmemStore(), close: func() error { return nil }, epoch: time.Now()}
}

// verify reads every entry: none may be missing between the first and the last.
func (l *checkedLog) verify() error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i != 0 && i <= last; i++ {
		var entry raft.Log
		if err := l.GetLog(i, &entry); err != nil {
			return fmt.Errorf("log: entry %d of %d..%d: %w: %w", i, first, last, err, ErrCorrupt)
		}
	}
	return nil
}

func (l *checkedLog) FirstIndex() (uint64, error)       { return l.store.FirstIndex() }
func (l *checkedLog) LastIndex() (uint64, error)        { return l.store.LastIndex() }
func (l *checkedLog) DeleteRange(min, max uint64) error { return l.store.DeleteRange(min, max) }
func (l *checkedLog) StoreLog(entry *raft.Log) error    { return l.StoreLogs([]*raft.Log{entry}) }

func (l *checkedLog) GetLog(index uint64, out *raft.Log) error {
	if err := l.store.GetLog(index, out); err != nil {
		return err
	}
	tail := len(out.Extensions) - crcBytes
	if tail < 0 || out.Index != index {
		return fmt.Errorf("log: entry %d: %w", index, ErrCorrupt)
	}
	sum := binary.BigEndian.Uint32(out.Extensions[tail:])
	out.Extensions = out.Extensions[:tail:tail]
	if sum != entrySum(out) {
		return fmt.Errorf("log: entry %d: checksum: %w", index, ErrCorrupt)
	}
	if tail == 0 {
		out.Extensions = nil
	}
	return nil
}

// StoreLogs puts the checksum behind the extensions, so that the data is not copied.
func (l *checkedLog) StoreLogs(entries []*raft.Log) error {
	checked := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		c := *entry
		c.Extensions = binary.BigEndian.AppendUint32(entry.Extensions[:len(entry.Extensions):len(entry.Extensions)], entrySum(entry))
		checked[i] = &c
	}
	l.writingSince.Store(int64(time.Since(l.epoch)) | 1) // never 0
	defer l.writingSince.Store(0)
	return l.store.StoreLogs(checked)
}

// writing is how long the write in progress has lasted; 0 when there is none.
func (l *checkedLog) writing() time.Duration {
	since := l.writingSince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(l.epoch) - time.Duration(since)
}

func entrySum(entry *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], entry.Index)
	binary.BigEndian.PutUint64(head[8:], entry.Term)
	head[16] = byte(entry.Type)
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, entry.Extensions)
	return crc32.Update(sum, castagnoli, entry.Data)
}

func (l *checkedLog) Set(key, value []byte) error {
	sum := crc32.Checksum(value, castagnoli)
	return l.store.Set(key, binary.BigEndian.AppendUint32(value[:len(value):len(value)], sum))
}

// Get returns the store's own error when there is no such key: raft compares its text.
func (l *checkedLog) Get(key []byte) ([]byte, error) {
	stored, err := l.store.Get(key)
	if err != nil || len(stored) == 0 {
		return nil, err
	}
	tail := len(stored) - crcBytes
	if tail < 0 || crc32.Checksum(stored[:tail], castagnoli) != binary.BigEndian.Uint32(stored[tail:]) {
		return nil, fmt.Errorf("log: value %q: %w", key, ErrCorrupt)
	}
	return stored[:tail], nil
}

func (l *checkedLog) SetUint64(key []byte, value uint64) error {
	return l.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (l *checkedLog) GetUint64(key []byte) (uint64, error) {
	value, err := l.Get(key)
	if err != nil || len(value) == 0 {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("log: value %q: %w", key, ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value), nil
}
