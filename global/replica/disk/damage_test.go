package disk

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// pathOf is where the file of a number is: a segment's, or for 0 that of the stable values.
func pathOf(dir string, n uint64) string {
	if n == 0 {
		return filepath.Join(dir, logFolder, stableFile)
	}
	return segmentPath(filepath.Join(dir, logFolder), n)
}

// files are those of the log in dir, by number.
func files(t testing.TB, dir string) map[uint64][]byte {
	t.Helper()
	numbers, err := segmentNumbers(filepath.Join(dir, logFolder))
	out := map[uint64][]byte{}
	for _, n := range append(numbers, 0) {
		data, err1 := os.ReadFile(pathOf(dir, n))
		out[n], err = data, errors.Join(err, err1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// put makes a log of these files.
func put(t testing.TB, files map[uint64][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := os.Mkdir(filepath.Join(dir, logFolder), 0o700)
	for n, data := range files {
		err = errors.Join(err, os.WriteFile(pathOf(dir, n), data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// changed is a copy with one file changed, or without it.
func changed(files map[uint64][]byte, n uint64, data []byte) map[uint64][]byte {
	out := maps.Clone(files)
	if out[n] = data; data == nil {
		delete(out, n)
	}
	return out
}

func refused(t *testing.T, dir, what string) {
	t.Helper()
	log, err := openSegments(dir, smallBlocks)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("%s: %v", what, err)
	}
	if err == nil {
		closed(t, log)
	}
}

// One flipped bit anywhere, written or not, and the log is refused.
func TestDamageIsFound(t *testing.T) {
	dir := t.TempDir()
	closed(t, filled(t, dir))
	random, flips := rand.New(rand.NewPCG(3, 4)), 0
	segments := files(t, dir)
	for n, data := range segments {
		file, err := os.OpenFile(pathOf(dir, n), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		flip := func(at int) {
			flips++
			_, err1 := file.WriteAt([]byte{data[at] ^ 1<<random.IntN(8)}, int64(at))
			refused(t, dir, "a flipped bit")
			_, err2 := file.WriteAt(data[at:at+1], int64(at))
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
		}
		for at := 0; at < len(data); at += blockBytes {
			flip(at + random.IntN(blockHead))
			for range 3 {
				flip(at + random.IntN(blockBytes))
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if flips < 1000 || len(segments) < 3 {
		t.Errorf("only %d flips in %d segments", flips, len(segments))
	}
	closed(t, open(t, dir))
}

func TestFilesThatAreCutLostOrSwapped(t *testing.T) {
	dir := t.TempDir()
	closed(t, filled(t, dir))
	whole := files(t, dir)
	numbers := slices.Sorted(maps.Keys(whole))
	for i, n := range numbers {
		data := whole[n]
		refused(t, put(t, changed(whole, n, nil)), "a lost file")
		for _, size := range []int{0, 1, blockBytes, len(data) / 2, len(data) - blockBytes, len(data) - 1} {
			refused(t, put(t, changed(whole, n, data[:size])), "a cut")
		}
		refused(t, put(t, changed(whole, n, append(bytes.Clone(data), make([]byte, blockBytes)...))), "a longer file")
		refused(t, put(t, changed(whole, n, whole[numbers[(i+1)%len(numbers)]])), "another one's file")
		if n == 0 {
			continue
		}
		moved := bytes.Clone(data)
		copy(moved[2*blockBytes:], data[blockBytes:2*blockBytes])
		refused(t, put(t, changed(whole, n, moved)), "a block that is another's")
		lost := bytes.Clone(data)
		clear(lost[:blockBytes])
		refused(t, put(t, changed(whole, n, lost)), "a lost head")
		if i < len(numbers)-1 {
			lost := bytes.Clone(data)
			clear(lost[blockBytes : 2*blockBytes])
			refused(t, put(t, changed(whole, n, lost)), "a lost block")
		}
	}
	refused(t, put(t, map[uint64][]byte{0: whole[0]}), "all segments are lost")
	closed(t, open(t, put(t, whole)))
}

// Whatever the frames of a segment say, and whatever happens to one of its bytes, it is refused or taken, and nothing panics.
func FuzzReplay(f *testing.F) {
	const segment, blocks = 7, 10
	before := state{first: 3, next: 9}
	var frames []byte // each with its length before it
	for _, frame := range [][]byte{
		before.head(segment, blocks), encodeEntries([]*raft.Log{{Index: 9, Data: []byte("x")}, {Index: 10, Extensions: []byte("y")}}),
		encodeDeleted(3, 4), encodeDeleted(10, 10), {continuedFrame},
	} {
		frames = append(append(frames, byte(len(frame))), frame...)
	}
	f.Add(frames, 0, byte(0))
	f.Add(frames, blockBytes+8, byte(0x80))
	f.Fuzz(func(t *testing.T, frames []byte, at int, flip byte) {
		var file []byte
		for n := uint32(1); len(frames) > 0; n++ {
			size := min(int(frames[0]), len(frames)-1)
			file = append(file, encodeFrame(segment, len(file)/blockBytes, n, frames[1:1+size])...)
			frames = frames[1+size:]
		}
		file = append(file, make([]byte, max(0, blocks*blockBytes-len(file)))...)
		if at >= 0 && at < len(file) {
			file[at] ^= flip
		}
		read := new(state)
		scan(segment, file, func(at int, payload []byte) error {
			if at == 0 {
				return read.begin(segment, blocks, payload)
			}
			return read.apply(at, payload)
		})
		read.complete()
	})
}
