package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// smallBlocks is the size of segments of which a short log has several. Two blocks are the reserve.
const smallBlocks = 32

type fataler interface {
	Helper()
	Fatal(...any)
}

func open(t fataler, dir string) *segmentLog {
	t.Helper()
	log, err := openSegments(dir, smallBlocks)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func closed(t fataler, log *segmentLog) {
	t.Helper()
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
}

// store appends n entries of that size, in one frame.
func store(log *segmentLog, n, size int) error {
	entries := make([]*raft.Log, n)
	for i := range entries {
		index := max(log.next, 1) + uint64(i)
		entries[i] = &raft.Log{Index: index, Term: 1, Data: bytes.Repeat([]byte{byte(index)}, size)}
	}
	return log.StoreLogs(entries)
}

// contents is everything that a log holds.
func contents(t fataler, log *segmentLog) (out string) {
	t.Helper()
	first, err1 := log.FirstIndex()
	last, err2 := log.LastIndex()
	for i := first; i != 0 && i <= last; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf("%d %d %d %q %q %d\n", entry.Index, entry.Term, entry.Type, entry.Data, entry.Extensions, entry.AppendedAt.UnixNano())
	}
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		value, err := log.Get([]byte(key))
		out += fmt.Sprintf("%s %x %v\n", key, value, err)
	}
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return out
}

// filled is a log as a replica leaves it: compacted, shortened, with small and large entries in several segments.
func filled(t testing.TB, dir string) *segmentLog {
	t.Helper()
	log := open(t, dir)
	for i := range 50 {
		size := 40
		if i%7 == 0 {
			size = 3000
		}
		if err := store(log, 4, size); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(log.DeleteRange(1, 60), log.SetUint64([]byte("CurrentTerm"), 5), log.DeleteRange(199, 200),
		log.SetUint64([]byte("LastVoteTerm"), 5), log.Set([]byte("LastVoteCand"), []byte("a,b")))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestLogInUse(t *testing.T) {
	dir := t.TempDir()
	log := filled(t, dir)
	defer closed(t, log)
	if _, err := OpenLog(dir); err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestLogOfAnEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "raft.db"), []byte("x"))
	if _, err := OpenLog(dir); err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "--join") {
		t.Errorf("it says %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, logFolder)); err == nil {
		t.Error("a new log was made beside it")
	}
}

// Any sequence of what raft does leaves what a slice and a map would hold, also after it is opened again.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		log := open(rt, dir)
		defer func() { log.close() }()
		var model []*raft.Log
		values := map[string][]byte{}
		next := rapid.Uint64Range(1, 5).Draw(rt, "first")
		for range rapid.IntRange(0, 30).Draw(rt, "steps") {
			switch n := rapid.IntRange(0, 5).Draw(rt, "n"); rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				var batch []*raft.Log
				for range n {
					data := bytes.Repeat([]byte{byte(next)}, rapid.SampledFrom([]int{0, 3, 470, 480, 2000, 9000}).Draw(rt, "size"))
					batch = append(batch, &raft.Log{Index: next, Term: 1, Data: data, Extensions: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(rt, "extensions")})
					next++
				}
				model = append(model, batch...)
				err = log.StoreLogs(batch)
			case 1:
				n = min(n, len(model))
				if n > 0 {
					err = log.DeleteRange(model[0].Index-uint64(n%2), model[n-1].Index)
				}
				model = model[n:]
			case 2:
				n = min(n, len(model))
				if n > 0 {
					next = model[len(model)-n].Index
					err = log.DeleteRange(next, model[len(model)-1].Index+uint64(n%2))
				}
				model = model[:len(model)-n]
			case 3:
				key := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key")
				values[key] = make([]byte, n*40)
				err = log.Set([]byte(key), values[key])
			case 4:
				closed(rt, log)
				log = open(rt, dir)
			}
			if err != nil {
				rt.Fatal(err)
			}
			equalsModel(rt, log, model, values)
		}
	})
}

func equalsModel(t *rapid.T, log *segmentLog, model []*raft.Log, values map[string][]byte) {
	for key, want := range values {
		if got, err := log.Get([]byte(key)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("value %q: %x, %v", key, got, err)
		}
	}
	first, _ := log.FirstIndex()
	last, _ := log.LastIndex()
	if len(model) == 0 {
		if first != 0 || last != 0 {
			t.Fatalf("empty, but %d..%d", first, last)
		}
		return
	}
	if first != model[0].Index || last != model[len(model)-1].Index {
		t.Fatalf("%d..%d, want %d..%d", first, last, model[0].Index, model[len(model)-1].Index)
	}
	for _, want := range model {
		var got raft.Log
		if err := log.GetLog(want.Index, &got); err != nil || !slices.Equal(got.Data, want.Data) || !slices.Equal(got.Extensions, want.Extensions) || got.Term != want.Term {
			t.Fatalf("entry %d: %v, %v", want.Index, got, err)
		}
	}
}

func TestLogRefusesGaps(t *testing.T) {
	log := filled(t, t.TempDir())
	defer closed(t, log)
	before := contents(t, log)
	for what, err := range map[string]error{
		"entry after a gap": log.StoreLog(&raft.Log{Index: 500}), "entry before the first": log.StoreLog(&raft.Log{Index: 7}),
		"entry that is there": log.StoreLog(&raft.Log{Index: 100}), "gap among the new": log.StoreLogs([]*raft.Log{{Index: 199}, {Index: 201}}),
		"hole in the middle": log.DeleteRange(100, 110),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	var entry raft.Log
	if err := log.GetLog(59, &entry); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that is gone: %v", err)
	}
	if contents(t, log) != before {
		t.Error("what was refused has changed something")
	}
	if err := store(log, 1, 40); err != nil {
		t.Errorf("the next one: %v", err)
	}
	empty := open(t, t.TempDir())
	defer closed(t, empty)
	if err := empty.StoreLog(&raft.Log{}); err == nil {
		t.Error("entry 0 was accepted")
	}
}

// A full disk refuses entries and nothing else: terms and votes can be stored for ever, and deletions, and once there is room
// the log goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	full := true
	create := log.create
	log.create = func(path string, head []byte, size int) error {
		if full {
			return &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
		}
		return create(path, head, size)
	}
	var err error
	for err == nil {
		err = store(log, 1, 40)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	before := log.next
	for term := range uint64(1000) {
		if err := log.SetUint64([]byte("CurrentTerm"), term); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.DeleteRange(1, 2); err != nil {
		t.Errorf("in the reserve: %v", err)
	}
	if err := store(log, 1, 40); !errors.Is(err, syscall.ENOSPC) || log.next != before {
		t.Errorf("next %d, %d before: %v", log.next, before, err)
	}
	full = false
	if err := store(log, 1, 40); err != nil {
		t.Error(err)
	}
	want := contents(t, log)
	closed(t, log)
	log = open(t, dir)
	defer closed(t, log)
	if contents(t, log) != want || log.next != before+1 || log.first != 3 {
		t.Errorf("%d..%d after all that", log.first, log.next)
	}
}

// After a write that failed nobody knows what is on disk: nothing is written any more, what was there is read.
func TestFailedWriteIsTheLast(t *testing.T) {
	dir := t.TempDir()
	log := filled(t, dir)
	want := contents(t, log)
	newest := log.segments[len(log.segments)-1]
	good := newest.file
	readOnly, err := os.Open(good.Name())
	if err != nil {
		t.Fatal(err)
	}
	newest.file = readOnly
	first := store(log, 1, 40)
	newest.file = good
	if err := readOnly.Close(); err != nil || first == nil || !strings.Contains(first.Error(), "restart") {
		t.Errorf("it says %v, %v", first, err)
	}
	for _, err := range []error{store(log, 1, 40), log.DeleteRange(100, 198)} {
		if !errors.Is(err, syscall.EBADF) {
			t.Errorf("afterwards: %v", err)
		}
	}
	if contents(t, log) != want {
		t.Error("what failed is seen")
	}
	closed(t, log)
	log = open(t, dir)
	defer closed(t, log)
	if err := store(log, 1, 40); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

// Readers see whole entries or none while segments come and go.
func TestReadersBesideAWriter(t *testing.T) {
	log := filled(t, t.TempDir())
	defer closed(t, log)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				first, _ := log.FirstIndex()
				last, _ := log.LastIndex()
				for _, index := range []uint64{first, (first + last) / 2, last, last + 1} {
					var entry raft.Log
					err := log.GetLog(index, &entry)
					if err != nil && !errors.Is(err, raft.ErrLogNotFound) || err == nil && entry.Index != index {
						t.Errorf("entry %d: %v, %v", index, entry.Index, err)
					}
				}
				if _, err := log.GetUint64([]byte("CurrentTerm")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range uint64(60) {
		if err := errors.Join(store(log, 3, 1000), log.DeleteRange(log.first, log.first+2), log.SetUint64([]byte("CurrentTerm"), i)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

// A file has its size and its zeros whether the file system promises them or not; if it has no room, there is no file.
func TestCreateFile(t *testing.T) {
	for name, promise := range map[string]func(*os.File, int) error{
		"promised": fallocate, "written": func(*os.File, int) error { return os.NewSyscallError("fallocate", syscall.EOPNOTSUPP) },
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := createFile(path, []byte("head"), 10_000, promise); err != nil {
			t.Fatal(name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, append([]byte("head"), make([]byte, 9_996)...)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	dir := t.TempDir()
	err := createFile(filepath.Join(dir, "file"), []byte("head"), 10_000, func(*os.File, int) error { return syscall.ENOSPC })
	if left, _ := os.ReadDir(dir); !errors.Is(err, syscall.ENOSPC) || len(left) != 0 {
		t.Errorf("%v, and %v is left", err, left)
	}
}
