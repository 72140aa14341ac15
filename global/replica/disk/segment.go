package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/periplus-mesh/periplus/internal/durable"
)

const segmentSuffix = ".log"

// segment is one file of the log. Its size never changes.
type segment struct {
	number  uint64
	file    *os.File // a write returns when it is on disk
	blocks  int
	extent      // the writer's
	written int // the writer's: blocks from here on may be no more than promised by the file system
}

// The first write to a promised place has the file system note that it was written, which takes it another half of the
// time. A small frame takes zeros along, so that those that follow it find written blocks; a large one does not mind.
const (
	zerosAhead = 64 << 10 / blockBytes
	smallFrame = 8 << 10 / blockBytes
)

func segmentPath(folder string, number uint64) string {
	return filepath.Join(folder, fmt.Sprintf("%016x%s", number, segmentSuffix))
}

// segmentNumbers are those of the files in folder, in order.
func segmentNumbers(folder string) (numbers []uint64, err error) {
	files, err := os.ReadDir(folder)
	for _, file := range files {
		number, err := strconv.ParseUint(strings.TrimSuffix(file.Name(), segmentSuffix), 16, 64)
		if err == nil && file.Name() == segmentPath("", number) {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// createFile makes a file of a size that begins with head and goes on with zeros, on disk when it returns. Its place there is
// taken, so that no write to it finds the disk full: promised or, where the file system cannot promise, written.
func createFile(path string, head []byte, size int, promise func(*os.File, int) error) error {
	temporary, err := durable.Stage(path, head)
	if err != nil {
		return err
	}
	defer os.Remove(temporary) // gone already after the rename
	file, err := os.OpenFile(temporary, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = promise(file, size)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		_, err = file.WriteAt(make([]byte, size-len(head)), int64(len(head)))
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

func fallocate(file *os.File, size int) (err error) {
	for {
		err = syscall.Fallocate(int(file.Fd()), 0, 0, int64(size))
		if err != syscall.EINTR {
			return os.NewSyscallError("fallocate", err)
		}
	}
}

func openSegment(folder string, number uint64) (*segment, error) {
	file, err := os.OpenFile(segmentPath(folder, number), os.O_RDWR|syscall.O_DSYNC, 0)
	if err != nil {
		return nil, err
	}
	return &segment{number: number, file: file}, nil
}

// readSegment opens a segment and applies all of it to s.
func readSegment(folder string, number uint64, s *state) (*segment, error) {
	data, err := os.ReadFile(segmentPath(folder, number))
	if err != nil {
		return nil, err
	}
	blocks := len(data) / blockBytes
	written, err := scan(number, data, func(at int, payload []byte) error {
		if at == 0 {
			return s.begin(number, blocks, payload)
		}
		return s.apply(at, payload)
	})
	if err == nil && s.continued && written.end > written.used {
		err = fmt.Errorf("block %d is behind the end: %w", written.end-1, ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("segment %d: %w", number, err)
	}
	out, err := openSegment(folder, number)
	if err == nil {
		out.blocks, out.extent = blocks, written
	}
	return out, err
}

// append writes one frame.
func (s *segment) append(payload []byte) error {
	data := encodeFrame(s.number, s.used, s.frames+1, payload)
	end := s.used + len(data)/blockBytes
	if end > s.written {
		s.written = end
		if end-s.used <= smallFrame {
			s.written = min(end+zerosAhead, s.blocks)
		}
		data = append(data, make([]byte, (s.written-end)*blockBytes)...)
	}
	if _, err := s.file.WriteAt(data, int64(s.used)*blockBytes); err != nil {
		return err
	}
	s.extent = extent{s.frames + 1, s.used, end, end}
	return nil
}

// settle writes the last frame again, for who wrote it may have been killed before it was on disk, and zeros over what is
// left of one more.
func (s *segment) settle() error {
	data := make([]byte, (s.end-s.last)*blockBytes)
	if _, err := s.file.ReadAt(data, int64(s.last)*blockBytes); err != nil {
		return err
	}
	clear(data[(s.used-s.last)*blockBytes:])
	if _, err := s.file.WriteAt(data, int64(s.last)*blockBytes); err != nil {
		return err
	}
	s.end = s.used
	return nil
}

// read returns an entry. It reads and checks the blocks that hold it.
func (s *segment) read(p place) ([]byte, error) {
	from, to := p.offset/blockPayload, blockCount(p.offset+p.length)
	data := make([]byte, (to-from)*blockBytes)
	if _, err := s.file.ReadAt(data, int64(p.frame+from)*blockBytes); err != nil {
		return nil, err
	}
	payload := data[:0] // it is packed where it is
	for i := range to - from {
		b, err := decodeBlock(s.number, p.frame+from+i, data[i*blockBytes:])
		if err != nil {
			return nil, fmt.Errorf("segment %d: %w", s.number, err)
		}
		payload = append(payload, b.payload...)
	}
	start := p.offset - from*blockPayload
	if len(payload) < start+p.length {
		return nil, fmt.Errorf("segment %d: frame at block %d: %w", s.number, p.frame, ErrCorrupt)
	}
	return payload[start : start+p.length : start+p.length], nil
}
