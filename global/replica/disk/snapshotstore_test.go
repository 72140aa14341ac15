package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// One flipped bit anywhere in the files of the newest snapshot: it is refused, or it is what it was.
func TestDamagedSnapshotFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenSnapshots(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int{10, 30, 50} {
		take(t, store, index)
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
			if _, err := OpenSnapshots(dir, hclog.NewNullLogger()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: byte %d flipped: %v", name, at, err)
			}
		}
		write(t, path, whole)
	}
	if _, err := OpenSnapshots(dir, hclog.NewNullLogger()); err != nil {
		t.Errorf("the whole one: %v", err)
	}
}

func TestUnsealedSnapshotDoesNotCount(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenSnapshots(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	take(t, store, 7)
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

// take stores a snapshot that stands for index.
func take(t *testing.T, store raft.SnapshotStore, index int) {
	t.Helper()
	_, transport := raft.NewInmemTransport("")
	configuration := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "127.0.0.1:1,127.0.0.1:2"}}}
	sink, err := store.Create(1, uint64(index), 1, configuration, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(stream(t, index)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), transport.Close()); err != nil {
		t.Fatal(err)
	}
}
