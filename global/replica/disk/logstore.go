package disk

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/raft"
)

// segmentLog is a raft.LogStore and StableStore that verifies everything it reads. What it is told to store is one frame, and
// one wait for the disk.
type segmentLog struct {
	folder string
	blocks int // of a segment, unless a frame needs more
	lock   *os.File
	*stable
	create func(path string, head []byte, size int) error // see createFile

	writer sync.Mutex // held while somebody writes; who holds it may read the state without mu
	failed error      // guarded by writer: nothing is written any more, for nobody knows what is on disk

	mu       sync.RWMutex // never held while a write waits for the disk
	state                 // guarded by mu
	segments []*segment   // guarded by mu: oldest first, at least one; the last is written to
}

func (l *segmentLog) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first, nil
}

func (l *segmentLog) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return max(l.next, 1) - 1, nil
}

func (l *segmentLog) GetLog(index uint64, out *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if index < l.first || index >= l.next {
		return raft.ErrLogNotFound
	}
	at := l.places[index-l.first]
	data, err := l.segments[at.segment-l.segments[0].number].read(at)
	if err == nil {
		err = decodeEntry(index, data, out)
	}
	if err != nil {
		return fmt.Errorf("log %s: entry %d: %w", l.folder, index, err)
	}
	return nil
}

func (l *segmentLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs appends; it refuses to leave a gap, and to replace.
func (l *segmentLog) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	next := l.next
	if next == 0 {
		next = max(entries[0].Index, 1)
	}
	for i, entry := range entries {
		if entry.Index != next+uint64(i) {
			return fmt.Errorf("log: entry %d does not follow %d..%d", entry.Index, l.first, next+uint64(i)-1)
		}
	}
	return l.add(encodeEntries(entries))
}

// DeleteRange deletes a beginning or an end of the log, both ends inclusive.
func (l *segmentLog) DeleteRange(from, to uint64) error {
	l.writer.Lock()
	defer l.writer.Unlock()
	first, next := l.first, l.next
	if from, to = max(from, first), min(to, max(next, 1)-1); from > to || next == 0 {
		return nil
	}
	if from > first && to < next-1 {
		return fmt.Errorf("log: deleting %d..%d of %d..%d would leave a gap", from, to, first, next-1)
	}
	if err := l.add(encodeDeleted(from, to)); err != nil {
		return err
	}
	return l.drop()
}

// add writes a frame, to a new segment if the last is full. After an error of making that one, nothing has changed.
func (l *segmentLog) add(payload []byte) error {
	if l.failed != nil {
		return l.failed
	}
	newest, need := l.segments[len(l.segments)-1], blockCount(len(payload))
	free := newest.blocks - newest.used - 1 // one is for the frame that continues the log
	if payload[0] == entriesFrame {
		free -= l.reserve()
	}
	if need <= free {
		return l.write(newest, payload)
	}
	next, err := l.make(newest.number+1, need)
	if err != nil {
		return fmt.Errorf("log %s: new segment: %w", l.folder, err)
	}
	if err := l.write(newest, []byte{continuedFrame}); err != nil {
		return errors.Join(err, next.file.Close())
	}
	l.mu.Lock()
	l.segments, l.current, l.continued = append(l.segments, next), next.number, false
	l.mu.Unlock()
	return l.write(next, payload)
}

// reserve is how many blocks of a segment entries leave for deletions: they make room on a full disk, which shows when a
// segment is to be made.
func (l *segmentLog) reserve() int { return l.blocks / 16 }

// make makes a segment that has room for a frame, on disk with its head when it returns.
func (l *segmentLog) make(number uint64, room int) (*segment, error) {
	used := blockCount(len(l.head(number, 0)))
	blocks := max(l.blocks, used+room+1+l.reserve())
	head := encodeFrame(number, 0, 1, l.head(number, blocks))
	if err := l.create(segmentPath(l.folder, number), head, blocks*blockBytes); err != nil {
		return nil, err
	}
	s, err := openSegment(l.folder, number)
	if err == nil {
		s.blocks, s.extent = blocks, extent{1, 0, used, used}
	}
	return s, err
}

// write writes a frame behind the last of s, and applies it once it is on disk.
func (l *segmentLog) write(s *segment, payload []byte) error {
	at := s.used
	err := s.append(payload)
	if err == nil {
		l.mu.Lock()
		err = l.apply(at, payload)
		l.mu.Unlock()
	}
	if err != nil {
		l.failed = failedWrite(l.folder, err)
	}
	return l.failed
}

// failedWrite is what every later write is told, too.
func failedWrite(path string, err error) error {
	return fmt.Errorf("log %s: a write failed, and nothing more is written until the controller is restarted: %w", path, err)
}

// drop removes the segments that hold nothing that is needed: their successors' heads say what was in them.
func (l *segmentLog) drop() (err error) {
	needed := l.segments[len(l.segments)-1].number
	if len(l.places) > 0 {
		needed = l.places[0].segment
	}
	n := needed - l.segments[0].number
	dead := l.segments[:n]
	l.mu.Lock()
	l.segments = l.segments[n:]
	l.mu.Unlock()
	for _, s := range dead {
		err = errors.Join(err, s.file.Close(), os.Remove(s.file.Name()))
	}
	return err
}

func (l *segmentLog) close() (err error) {
	for _, s := range l.segments {
		err = errors.Join(err, s.file.Close())
	}
	if l.stable != nil {
		err = errors.Join(err, l.stable.file.Close())
	}
	return errors.Join(err, l.lock.Close())
}
