package disk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// opens wants a log of these files to hold that, and to go on from there, into another segment.
func opens(t *testing.T, what string, files map[uint64][]byte, want string) (dir string) {
	t.Helper()
	dir = put(t, files)
	log, err := openSegments(dir, smallBlocks)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return dir
	}
	if contents(t, log) != want {
		t.Errorf("%s: it is another log", what)
	}
	for _, size := range []int{40, 9000, 9000} { // the first is shorter than what may have been torn
		err := store(log, 1, size)
		want := contents(t, log)
		closed(t, log)
		if log = open(t, dir); err != nil || contents(t, log) != want {
			t.Errorf("%s: what was written afterwards is not there: %v", what, err)
		}
	}
	closed(t, log)
	return dir
}

// Power is lost in the middle of a write: any of its blocks are on disk, any are not.
func TestTornWrites(t *testing.T) {
	for what, write := range map[string]func(*segmentLog) error{
		"beginning": func(l *segmentLog) error { return l.DeleteRange(1, 1) },
		"end":       func(l *segmentLog) error { return l.DeleteRange(2, 2) },
		"2 blocks":  func(l *segmentLog) error { return store(l, 2, 400) },
		"3 blocks":  func(l *segmentLog) error { return store(l, 1, 1200) },
		"6 blocks":  func(l *segmentLog) error { return store(l, 6, 450) },
	} {
		dir := t.TempDir()
		log := open(t, dir)
		err := store(log, 2, 700)
		before, old := contents(t, log), files(t, dir)
		err = errors.Join(err, write(log))
		after, whole := contents(t, log), files(t, dir)[1]
		from, to := log.segments[0].last, log.segments[0].used
		closed(t, log)
		if err != nil || len(log.segments) != 1 {
			t.Fatal(what, err)
		}
		for subset := range 1 << (to - from) {
			torn := bytes.Clone(old[1])
			for i := from; i < to; i++ {
				if subset&(1<<(i-from)) != 0 {
					copy(torn[i*blockBytes:], whole[i*blockBytes:(i+1)*blockBytes])
				}
			}
			want := before
			if subset == 1<<(to-from)-1 {
				want = after
			}
			opens(t, fmt.Sprintf("%s, blocks %b", what, subset), changed(old, 1, torn), want)
		}
	}
}

// What looks like a torn write and is not.
func TestDamagedTails(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	if err := store(log, 1, 1200); err != nil {
		t.Fatal(err)
	}
	at := log.segments[0].used
	next := encodeFrame(1, at, 3, encodeEntries([]*raft.Log{{Index: 2, Data: make([]byte, 1200)}}))
	later := encodeFrame(1, at+4, 4, encodeDeleted(1, 1))
	closed(t, log)
	old := files(t, dir)
	tail := func(edit func(blocks []byte)) map[uint64][]byte {
		data := bytes.Clone(old[1])
		edit(data[at*blockBytes:])
		return changed(old, 1, data)
	}
	refused(t, put(t, tail(func(b []byte) { copy(b, next[:blockBytes]); b[100] ^= 1 })), "a flipped bit in a torn frame")
	refused(t, put(t, tail(func(b []byte) { copy(b[4*blockBytes:], later) })), "a lost frame before the last")
	refused(t, put(t, tail(func(b []byte) { copy(b, next[:blockBytes]); copy(b[4*blockBytes:], later) })), "a torn frame before the last")
	refused(t, put(t, tail(func(b []byte) { copy(b, encodeFrame(1, at, 2, []byte{deletedFrame})) })), "a frame that is there already")

	log = open(t, dir)
	for len(log.segments) == 1 {
		if err := store(log, 1, 40); err != nil {
			t.Fatal(err)
		}
	}
	end := log.segments[0].used
	closed(t, log)
	two := files(t, dir)
	behind := bytes.Clone(two[1])
	copy(behind[end*blockBytes:], encodeFrame(1, end, log.segments[0].frames+1, make([]byte, 600))[:blockBytes])
	refused(t, put(t, changed(two, 1, behind)), "a torn frame in a segment that has ended")
}

// The process is killed at each step of going on in another segment.
func TestCrashBetweenSegments(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	var before string
	var old, made map[uint64][]byte
	create := log.create
	log.create = func(path string, head []byte, size int) error {
		before, old = contents(t, log), files(t, dir)
		err := create(path, head, size)
		made = files(t, dir)
		return err
	}
	if err := log.SetUint64([]byte("CurrentTerm"), 3); err != nil {
		t.Fatal(err)
	}
	for made == nil {
		if err := store(log, 1, 700); err != nil {
			t.Fatal(err)
		}
	}
	after, done := contents(t, log), files(t, dir)
	closed(t, log)

	opens(t, "nothing was made", old, before)
	opens(t, "the new one was made", made, before)
	opens(t, "the old one has ended", changed(done, 2, made[2]), before)
	opens(t, "the new one is used", done, after)
	refused(t, put(t, changed(done, 1, made[1])), "the new one is used and the old one has not ended")
	refused(t, put(t, changed(done, 2, nil)), "the new one is lost")

	dir = put(t, old)
	left, err := durable.Stage(segmentPath(filepath.Join(dir, logFolder), 2), done[2])
	if err != nil {
		t.Fatal(err)
	}
	log = open(t, dir)
	defer closed(t, log)
	if _, err := os.Stat(left); err == nil || contents(t, log) != before {
		t.Errorf("half a file: %v", err)
	}
}

// The process is killed while it deletes segments, or they come back: any of them may be there.
func TestCrashWhileDeleting(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	for range 12 {
		if err := store(log, 1, 5000); err != nil {
			t.Fatal(err)
		}
	}
	old := files(t, dir)
	if err := log.DeleteRange(1, 9); err != nil {
		t.Fatal(err)
	}
	want, done := contents(t, log), files(t, dir)
	closed(t, log)
	var dead []uint64
	for _, n := range slices.Sorted(maps.Keys(old)) {
		if done[n] == nil {
			dead = append(dead, n)
		}
	}
	if len(dead) < 3 {
		t.Fatalf("only %v were deleted", dead)
	}
	for subset := range 1 << len(dead) {
		some := maps.Clone(done)
		for i, n := range dead {
			if subset&(1<<i) != 0 {
				some[n] = old[n]
			}
		}
		dir := opens(t, fmt.Sprintf("%b of %v are left", subset, dead), some, want)
		if left := files(t, dir); left[dead[len(dead)-1]] != nil || left[dead[0]] != nil {
			t.Errorf("%b of %v: they are still there", subset, dead)
		}
	}
}
