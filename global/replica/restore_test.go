package replica

import (
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica/disk"
)

// After a restore from a snapshot nobody waits for a command that it stands for but that changed nothing.
func TestRestoredStateReflectsCommandsThatChangedNothing(t *testing.T) {
	f := newFSM()
	f.do(1, put(gateway("a", "g", 1)))
	f.do(2, &pb.Command{Id: []byte("barrier")})
	restored := newFSM()
	if err := restored.Restore(persisted(t, f)); err != nil {
		t.Fatal(err)
	}
	if got := restored.applied.Latest(); got != 2 {
		t.Errorf("applied %d, want 2", got)
	}
}

// The process died after it had taken the leader's snapshot and before it dropped its log, which ends long before.
func TestLogThatEndsBeforeTheSnapshot(t *testing.T) {
	p := newPlane(t, "a")
	dir := filepath.Join(p.dir, "data", "a")
	log, err := disk.OpenLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	configuration := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: raft.ServerAddress(p.members["a"].Address.String())}}}
	err = errors.Join(log.SetUint64([]byte("CurrentTerm"), 2), log.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration)}, {Index: 2, Term: 1, Type: raft.LogNoop},
	}), log.Close())
	if err != nil {
		t.Fatal(err)
	}
	snapshots, err := disk.OpenSnapshots(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	sink, err := snapshots.Create(1, 100, 2, configuration, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	f := newFSM()
	f.do(90, put(gateway("a", "g", 1)))
	if _, err := io.Copy(sink, persisted(t, f)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), transport.Close()); err != nil {
		t.Fatal(err)
	}
	p.start("a", func(c *Config) { c.Bootstrap, c.ProposeTimeout = false, 5*time.Second })
	p.write("a", 1)
	if n := latest(p.nodes["a"].store).Len(); n != 2 {
		t.Errorf("%d objects, want what the snapshot has and the new one", n)
	}
}
