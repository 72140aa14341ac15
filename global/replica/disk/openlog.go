package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/periplus-mesh/periplus/internal/durable"
)

const (
	logFolder     = "log"
	segmentBlocks = 4 << 20 / blockBytes
	earlierFile   = "raft.db" // of versions that kept the log in bbolt
)

// openSegments opens the log in dir/log and reads all of it once. Damage is [ErrCorrupt].
func openSegments(dir string, blocks int) (*segmentLog, error) {
	l := &segmentLog{folder: filepath.Join(dir, logFolder), blocks: blocks}
	l.create = func(path string, head []byte, size int) error { return createFile(path, head, size, fallocate) }
	earlier := filepath.Join(dir, earlierFile)
	if _, err := os.Stat(earlier); err == nil {
		return nil, fmt.Errorf("log %s: it is of an earlier version; delete this replica's data folder and start it with --join, one replica at a time (all of a mesh that periplus up has started: give it another --dir)", earlier)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("log %s: %w", l.folder, err)
	}
	return l, nil
}

func (l *segmentLog) open() (err error) {
	if err := os.MkdirAll(l.folder, 0o700); err != nil {
		return err
	}
	if l.lock, err = lockFile(filepath.Join(l.folder, "lock")); err != nil {
		return err
	}
	dir := filepath.Dir(l.folder)
	above := durable.SyncDir(filepath.Dir(dir))
	if errors.Is(above, fs.ErrPermission) { // it is somebody else's, who made dir
		above = nil
	}
	err = errors.Join(durable.Sweep(l.folder), durable.SyncDir(l.folder), durable.SyncDir(dir), above)
	if err == nil {
		err = l.load()
	}
	if err != nil {
		err = errors.Join(err, l.close())
	}
	return err
}

// lockFile waits a second for another process that has it.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for range 20 {
		if err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("in use by another process: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// load reads the segments, or makes the first. It changes nothing before it has found everything in order.
func (l *segmentLog) load() error {
	numbers, err := segmentNumbers(l.folder)
	if err != nil {
		return err
	}
	if l.stable, err = openStable(filepath.Join(l.folder, stableFile), len(numbers) == 0); err != nil {
		return err
	}
	if len(numbers) == 0 && l.generation > 1 {
		return fmt.Errorf("there is no segment, but a term: %w", ErrCorrupt)
	}
	if len(numbers) == 0 {
		return l.makeFirst()
	}
	// What is before a gap has outlived its deletion: if it were needed, entries would be missing.
	start := len(numbers) - 1
	for start > 0 && numbers[start-1] == numbers[start]-1 {
		start--
	}
	dead := slices.Clone(numbers[:start])
	for _, number := range numbers[start:] {
		if len(l.segments) > 0 && !l.continued { // the process died before it went on there
			if err := checkUnused(l.folder, number); err != nil {
				return err
			}
			dead = append(dead, number)
			continue
		}
		s, err := readSegment(l.folder, number, &l.state)
		if err != nil {
			return err
		}
		l.segments = append(l.segments, s)
	}
	if err := l.complete(); err != nil {
		return err
	}
	return l.tidy(dead)
}

func (l *segmentLog) makeFirst() error {
	s, err := l.make(1, 0)
	if err == nil {
		l.segments, l.current = []*segment{s}, s.number
	}
	return err
}

// checkUnused wants a segment with nothing but its head.
func checkUnused(folder string, number uint64) error {
	s, err := readSegment(folder, number, new(state))
	if err != nil {
		return err
	}
	if s.frames > 1 || s.end > s.used {
		err = fmt.Errorf("segment %d goes on, but the one before it does not end: %w", number, ErrCorrupt)
	}
	return errors.Join(err, s.file.Close())
}

// tidy finishes what a crash has interrupted. The frame that ends the last segment but one may be as new as the head that
// follows it.
func (l *segmentLog) tidy(dead []uint64) (err error) {
	for _, s := range l.segments[max(0, len(l.segments)-2):] {
		err = errors.Join(err, s.settle())
	}
	for _, number := range dead {
		err = errors.Join(err, os.Remove(segmentPath(l.folder, number)))
	}
	return errors.Join(err, l.drop())
}
