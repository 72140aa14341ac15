package disk

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Log is a raft.LogStore and StableStore that knows how long the write in progress has lasted, of those that raft's main
// goroutine makes: while one hangs, so does raft.
type Log struct {
	logStore
	close func() error
	// writingSince is the start of that write, as nanoseconds since epoch; 0 when there is none.
	writingSince atomic.Int64
	epoch        time.Time
	failures     atomic.Uint64
}

type logStore interface {
	raft.LogStore
	raft.StableStore
}

// OpenLog opens the log in dir, made when missing, and reads all of it once. Damage is [ErrCorrupt].
func OpenLog(dir string) (*Log, error) {
	log, err := openSegments(dir, segmentBlocks)
	if err != nil {
		return nil, err
	}
	return &Log{logStore: log, close: log.close, epoch: time.Now()}, nil
}

// MemoryLog keeps everything in memory: for simulation only.
func MemoryLog() *Log {
	return &Log{logStore: raft.NewInmemStore(), close: func() error { return nil }, epoch: time.Now()}
}

// IsMonotonic makes raft drop the whole log when it restores a snapshot from the leader, so that no gap is left.
func (*Log) IsMonotonic() bool { return true }

// StoreLog implements raft.LogStore.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	return l.watched(func() error { return l.logStore.StoreLogs(entries) })
}

// Set implements raft.StableStore.
func (l *Log) Set(key, value []byte) error {
	return l.watched(func() error { return l.logStore.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (l *Log) SetUint64(key []byte, value uint64) error {
	return l.watched(func() error { return l.logStore.SetUint64(key, value) })
}

func (l *Log) watched(write func() error) error {
	l.writingSince.Store(int64(time.Since(l.epoch)) | 1) // never 0
	defer l.writingSince.Store(0)
	err := write()
	if err != nil {
		l.failures.Add(1)
	}
	return err
}

// Failures is how many of these writes have failed.
func (l *Log) Failures() uint64 { return l.failures.Load() }

// Close closes the files. Nothing may be in progress.
func (l *Log) Close() error { return l.close() }

// Writing is how long the write in progress has lasted; 0 when there is none.
func (l *Log) Writing() time.Duration {
	since := l.writingSince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(l.epoch) - time.Duration(since)
}
