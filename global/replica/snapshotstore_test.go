package replica

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// One flipped bit anywhere in the files of the newest snapshot: it is refused, or it is what it was.
func TestDamagedSnapshotFilesAreRefused(t *testing.T) {
	c := &Config{DataDir: t.TempDir(), Log: quiet()}
	store, err := openSnapshots(c)
	if err != nil {
		t.Fatal(err)
	}
	f := newFSM()
	for i := range 50 {
		f.do(uint64(i+1), put(gateway("a", "g", i+1)))
		if i%20 == 9 {
			take(t, store, f)
		}
	}
	list, err := store.List()
	if err != nil || len(list) != 3 || list[0].Index != 50 {
		t.Fatalf("%d snapshots, %v", len(list), err)
	}
	random := rand.New(rand.NewPCG(5, 6))
	for _, name := range []string{metaFile, sealFile, "state.bin"} {
		path := filepath.Join(store.dir, list[0].ID, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 70 {
			spoiled := bytes.Clone(whole)
			at := random.IntN(len(whole))
			spoiled[at] ^= 1 << random.IntN(8)
			write(t, path, spoiled)
			if _, err := openSnapshots(c); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: byte %d flipped: %v", name, at, err)
			}
		}
		write(t, path, whole)
	}
	if _, err := openSnapshots(c); err != nil {
		t.Errorf("the whole one: %v", err)
	}
}

func TestUnsealedSnapshotDoesNotCount(t *testing.T) {
	c := &Config{DataDir: t.TempDir(), Log: quiet()}
	store, err := openSnapshots(c)
	if err != nil {
		t.Fatal(err)
	}
	f := newFSM()
	f.do(7, put(gateway("a", "g", 1)))
	take(t, store, f)
	list, err := store.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%d snapshots, %v", len(list), err)
	}
	if err := os.Remove(filepath.Join(store.dir, list[0].ID, sealFile)); err != nil { // the process died before it
		t.Fatal(err)
	}
	if list, err := store.List(); err != nil || len(list) != 0 {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, store raft.SnapshotStore, f *fsm) {
	t.Helper()
	_, transport := raft.NewInmemTransport("")
	configuration := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "127.0.0.1:1,127.0.0.1:2"}}}
	sink, err := store.Create(1, f.applied.Latest(), 1, configuration, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(sink, persisted(t, f)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), transport.Close()); err != nil {
		t.Fatal(err)
	}
}
