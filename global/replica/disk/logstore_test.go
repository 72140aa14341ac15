package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func open(t testing.TB, dir string) *Log {
	t.Helper()
	log, err := OpenLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// contents is everything that a log holds.
func contents(t testing.TB, log *Log) (out string) {
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

// filled is a log as a replica leaves it: compacted, with small and large entries, and with page structure of several
// levels.
func filled(t testing.TB, dir string) *Log {
	t.Helper()
	log := open(t, dir)
	random := rand.New(rand.NewPCG(1, 2))
	for i := uint64(1); i <= 200; i += 4 {
		var entries []*raft.Log
		for j := range uint64(4) {
			data := fmt.Appendf(nil, "an entry of the usual size, number %d", i+j)
			if random.IntN(20) == 0 {
				data = append(data, make([]byte, 20_000)...)
			}
			entries = append(entries, &raft.Log{Index: i + j, Term: 1 + i/50, Data: data})
		}
		if err := log.StoreLogs(entries); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(log.DeleteRange(1, 60), log.DeleteRange(199, 200), log.SetUint64([]byte("CurrentTerm"), 5),
		log.SetUint64([]byte("LastVoteTerm"), 5), log.Set([]byte("LastVoteCand"), []byte("a,b")))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// One flipped bit anywhere: the log is refused, or it is what it was. Never is it another, and nothing panics.
func TestDamageIsFoundOrHarmless(t *testing.T) {
	dir := t.TempDir()
	log := filled(t, dir)
	want := contents(t, log)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	random, refused, harmless := rand.New(rand.NewPCG(3, 4)), 0, 0
	spoil := func(at int, flip byte) {
		t.Helper()
		spoiled := bytes.Clone(whole)
		spoiled[at] ^= flip
		if found := reopened(t, spoiled, want, at%8 == 0); found {
			refused++
		} else {
			harmless++
		}
	}
	for range 200 {
		spoil(random.IntN(len(whole)), 1<<random.IntN(8))
	}
	t.Logf("anywhere in %d bytes: %d refused, %d harmless", len(whole), refused, harmless)
	refused, harmless = 0, 0
	for at := 0; at < len(whole); at += 4096 { // each page's head, and what stands first in it
		spoil(at+random.IntN(48), 1<<random.IntN(8))
	}
	t.Logf("in the structure: %d refused, %d harmless", refused, harmless)
	if refused == 0 {
		t.Error("nothing was found")
	}
	for _, size := range []int{1, 4095, 4096, 8192, len(whole) / 2} {
		if !reopened(t, whole[:size], want, true) {
			t.Errorf("cut to %d of %d bytes and not noticed", size, len(whole))
		}
	}
}

// reopened opens a copy and tells whether it was refused; else its contents must be want, also after a
// write if there is to be one.
func reopened(t *testing.T, file []byte, want string, write bool) (refused bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, logFile), file, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := OpenLog(dir)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("refused with an error that does not say what to do: %v", err)
		}
		return true
	}
	if got := contents(t, log); got != want {
		t.Error("another log than before, and not noticed")
	}
	if !write {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		return false
	}
	last, _ := log.LastIndex()
	if err := errors.Join(log.StoreLog(&raft.Log{Index: last + 1, Term: 9}), log.Close()); err != nil {
		t.Error(err)
	}
	again := open(t, dir)
	if got := contents(t, again); len(got) <= len(want) {
		t.Error("the write after harmless damage is lost")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	return false
}

func TestLogInUse(t *testing.T) {
	dir := t.TempDir()
	log := filled(t, dir)
	if _, err := OpenLog(dir); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("opened twice: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}

// Any sequence of what raft does leaves what a slice would hold, also after it is opened again.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		log := open(t, dir)
		defer func() { log.Close() }()
		var model []*raft.Log
		next := rapid.Uint64Range(1, 5).Draw(rt, "first")
		for range rapid.IntRange(0, 12).Draw(rt, "steps") {
			switch n := rapid.IntRange(0, 5).Draw(rt, "n"); rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				var batch []*raft.Log
				for range n {
					batch = append(batch, &raft.Log{Index: next, Term: 1, Data: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(rt, "data"), Extensions: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(rt, "extensions")})
					next++
				}
				model = append(model, batch...)
				err = log.StoreLogs(batch)
			case 1:
				n = min(n, len(model))
				if n > 0 {
					err = log.DeleteRange(model[0].Index, model[n-1].Index)
				}
				model = model[n:]
			case 2:
				n = min(n, len(model))
				if n > 0 {
					next = model[len(model)-n].Index
					err = log.DeleteRange(next, model[len(model)-1].Index)
				}
				model = model[:len(model)-n]
			case 3:
				err = log.Close()
				log = open(t, dir)
			}
			if err != nil {
				rt.Fatal(err)
			}
			equalsModel(rt, log, model)
		}
	})
}

func equalsModel(t *rapid.T, log *Log, model []*raft.Log) {
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
	defer log.Close()
	for what, err := range map[string]error{
		"entry after a gap": log.StoreLog(&raft.Log{Index: 500}), "entry before the first": log.StoreLog(&raft.Log{Index: 7}),
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
}

func FuzzCheckPages(f *testing.F) {
	dir := f.TempDir()
	log := open(f, dir)
	err := errors.Join(log.StoreLog(&raft.Log{Index: 1, Data: []byte("x")}), log.Close())
	whole, err2 := os.ReadFile(filepath.Join(dir, logFile))
	if err := errors.Join(err, err2); err != nil {
		f.Fatal(err)
	}
	f.Add(whole, 4096*3, byte(1))
	f.Add(whole[:4096], 16, byte(0))
	f.Fuzz(func(t *testing.T, file []byte, at int, flip byte) {
		if at >= 0 && at < len(file) {
			file = bytes.Clone(file)
			file[at] ^= flip
		}
		checkPages(bytes.NewReader(file))
	})
}
