package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// Snapshots is raft's snapshot store on disk, with two differences: a snapshot's metadata, which hold the index
// it stands for and the members, have a checksum; and a damaged snapshot is an error. Raft itself would pass over it
// to an older one, whose successors are no longer in the log.
type Snapshots struct {
	*raft.FileSnapshotStore
	dir string
}

const (
	keptSnapshots = 3
	metaFile      = "meta.json" // raft's
	sealFile      = "meta.crc"  // big-endian CRC32C of it
	crcBytes      = 4
)

// OpenSnapshots opens dir/snapshots, made when missing. Damage to the newest is [ErrCorrupt].
func OpenSnapshots(dir string, log hclog.Logger) (*Snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, log)
	if err != nil {
		return nil, err
	}
	s := &Snapshots{files, filepath.Join(dir, "snapshots")}
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return s, err
	}
	_, newest, err := s.Open(list[0].ID) // reads all of it and compares raft's own checksum
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w: %w", filepath.Join(s.dir, list[0].ID), err, ErrCorrupt)
	}
	return s, newest.Close()
}

// List verifies what raft would only parse. A snapshot without a seal was not completed: the log still has what it
// stands for.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.FileSnapshotStore.List()
	if err != nil {
		return nil, err
	}
	sealed, err := filepath.Glob(filepath.Join(s.dir, "*", sealFile))
	if err != nil {
		return nil, err
	}
	complete := make(map[string]bool)
	for _, path := range sealed {
		id := filepath.Base(filepath.Dir(path))
		if err := checkSeal(filepath.Dir(path)); err != nil {
			return nil, err
		}
		complete[id] = true
	}
	return slices.DeleteFunc(list, func(m *raft.SnapshotMeta) bool { return !complete[m.ID] }), nil
}

func checkSeal(dir string) error {
	seal, err1 := os.ReadFile(filepath.Join(dir, sealFile))
	meta, err2 := os.ReadFile(filepath.Join(dir, metaFile))
	if errors.Is(err1, fs.ErrNotExist) {
		return nil // it was reaped meanwhile
	}
	if err := errors.Join(err1, err2); err != nil || len(seal) != crcBytes || binary.BigEndian.Uint32(seal) != crc32.Checksum(meta, castagnoli) {
		return errors.Join(err, fmt.Errorf("snapshot %s: metadata: %w", dir, ErrCorrupt))
	}
	return nil
}

// Create implements raft.SnapshotStore.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	return &sealedSink{SnapshotSink: sink, dir: filepath.Join(s.dir, sink.ID())}, nil
}

type sealedSink struct {
	raft.SnapshotSink
	dir    string
	closed bool // or cancelled
}

func (s *sealedSink) Cancel() error {
	s.closed = true
	return s.SnapshotSink.Cancel()
}

// Close seals the snapshot. Raft shortens the log after that.
func (s *sealedSink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	meta, err := os.ReadFile(filepath.Join(s.dir, metaFile))
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := durable.Write(filepath.Join(s.dir, sealFile), binary.BigEndian.AppendUint32(nil, crc32.Checksum(meta, castagnoli))); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
