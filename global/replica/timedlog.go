package replica

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// timedLog is a log and stable store that knows how long the write in progress has lasted.
type timedLog struct {
	logStore
	close func() error
	// writingSince is the start of the write in progress, as nanoseconds since epoch; 0 when there is none.
	writingSince atomic.Int64
	epoch        time.Time
}

type logStore interface {
	raft.LogStore
	raft.StableStore
}

// openLog opens the log in dir. Damage is [ErrCorrupt].
func openLog(dir string) (*timedLog, error) {
	log, err := openBolt(dir)
	if err != nil {
		return nil, err
	}
	return &timedLog{logStore: log, close: log.db.Close, epoch: time.Now()}, nil
}

// memoryLog keeps everything in memory.
func memoryLog() *timedLog {
	return &timedLog{logStore: raft.NewInmemStore(), close: func() error { return nil }, epoch: time.Now()}
}

// IsMonotonic: see [boltLog.IsMonotonic]; the one in memory has nothing against it.
func (*timedLog) IsMonotonic() bool { return true }

func (l *timedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *timedLog) StoreLogs(entries []*raft.Log) error {
	l.writingSince.Store(int64(time.Since(l.epoch)) | 1) // never 0
	defer l.writingSince.Store(0)
	return l.logStore.StoreLogs(entries)
}

// writing is how long the write in progress has lasted; 0 when there is none.
func (l *timedLog) writing() time.Duration {
	since := l.writingSince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(l.epoch) - time.Duration(since)
}
