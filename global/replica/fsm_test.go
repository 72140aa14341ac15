package replica

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

func newFSM() *fsm { return &fsm{store: new(mesh.Store)} }

func (f *fsm) do(index uint64, command *pb.Command) any {
	data, err := proto.Marshal(command)
	if err != nil {
		panic(err)
	}
	return f.Apply(&raft.Log{Index: index, Data: data})
}

func cursor(epoch, sequence uint64) *pb.Object {
	return &pb.Object{Kind: &pb.Object_Cursor{Cursor: &pb.Cursor{Cluster: "a", Epoch: epoch, Sequence: sequence}}}
}

func newer(epoch, sequence uint64) *pb.Guard {
	return &pb.Guard{Guard: &pb.Guard_Newer{Newer: cursor(epoch, sequence).GetCursor()}}
}

func holds(key string, o *pb.Object) *pb.Guard {
	g := &pb.KeyGuard{Key: key}
	if o != nil {
		object, err := meshpb.Decode(o)
		if err != nil {
			panic(err)
		}
		digest := meshpb.Digest(object)
		g.Digest = digest[:]
	}
	return &pb.Guard{Guard: &pb.Guard_Key{Key: g}}
}

func TestGuards(t *testing.T) {
	f := newFSM()
	g1, g2 := gateway("a", "g", 1), gateway("a", "g", 2)
	for i, step := range []struct {
		what  string
		parts []*pb.CommandPart
		want  []bool
	}{
		{"create when absent", []*pb.CommandPart{{Guards: []*pb.Guard{holds("gateway/a/g", nil)}, Upserts: []*pb.Object{g1}}}, []bool{true}},
		{"create when there", []*pb.CommandPart{{Guards: []*pb.Guard{holds("gateway/a/g", nil)}, Upserts: []*pb.Object{g2}}}, []bool{false}},
		{"swap, and a later part sees it", []*pb.CommandPart{
			{Guards: []*pb.Guard{holds("gateway/a/g", g1)}, Upserts: []*pb.Object{g2}},
			{Guards: []*pb.Guard{holds("gateway/a/g", g1)}, Deletes: []string{"gateway/a/g"}},
			{Guards: []*pb.Guard{holds("gateway/a/g", g2)}, Upserts: []*pb.Object{gateway("a", "h", 3)}},
		}, []bool{true, false, true}},
		{"newer than nothing", []*pb.CommandPart{{Guards: []*pb.Guard{newer(1, 1)}, Upserts: []*pb.Object{cursor(1, 1)}}}, []bool{true}},
		{"the same again", []*pb.CommandPart{{Guards: []*pb.Guard{newer(1, 1)}, Upserts: []*pb.Object{cursor(1, 1)}}}, []bool{false}},
		{"older epoch, higher sequence", []*pb.CommandPart{
			{Guards: []*pb.Guard{newer(2, 0)}, Upserts: []*pb.Object{cursor(2, 0)}}, {Guards: []*pb.Guard{newer(1, 9)}, Upserts: []*pb.Object{cursor(1, 9)}},
		}, []bool{true, false}},
		{"all guards must hold", []*pb.CommandPart{{Guards: []*pb.Guard{newer(3, 0), holds("gateway/a/x", g1)}, Upserts: []*pb.Object{cursor(3, 0)}}}, []bool{false}},
		{"a digest of another length holds nothing", []*pb.CommandPart{{Guards: []*pb.Guard{{Guard: &pb.Guard_Key{Key: &pb.KeyGuard{Key: "gateway/a/g", Digest: []byte{1}}}}}}}, []bool{false}},
		{"a barrier", nil, nil},
	} {
		result, ok := f.do(uint64(i+1), &pb.Command{Parts: step.parts}).(*pb.CommandResult)
		if !ok || !slices.Equal(result.GetApplied(), step.want) || result.GetIndex() != uint64(i+1) {
			t.Errorf("%s: %v, want %v", step.what, result, step.want)
		}
	}
}

func TestMalformedCommandsChangeNothing(t *testing.T) {
	f := newFSM()
	f.do(1, put(gateway("a", "g", 1)))
	before := latest(f.store)
	for what, command := range map[string]*pb.Command{
		"bad object beside a good one": put(gateway("a", "h", 1), gateway("A B", "g", 0)),
		"empty object":                 put(&pb.Object{}),
		"empty guard":                  {Parts: []*pb.CommandPart{{Guards: []*pb.Guard{{}}, Deletes: []string{"gateway/a/g"}}}},
	} {
		if _, ok := f.do(2, command).(error); !ok || latest(f.store) != before {
			t.Errorf("%s: accepted, or the state changed", what)
		}
	}
	if _, ok := f.Apply(&raft.Log{Index: 3, Data: []byte{0xff}}).(error); !ok {
		t.Error("garbage accepted")
	}
}

func TestRepeatedCommandIsDoneOnce(t *testing.T) {
	f := newFSM()
	command := put(gateway("a", "g", 1))
	command.Id = []byte("one")
	command.Parts[0].Guards = []*pb.Guard{holds("gateway/a/g", nil)}
	first := f.do(1, command).(*pb.CommandResult)
	f.do(2, &pb.Command{Parts: []*pb.CommandPart{{Deletes: []string{"gateway/a/g"}}}})
	restored := newFSM()
	if err := restored.Restore(persisted(t, f)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*fsm{f, restored} {
		if again, ok := f.do(3, command).(*pb.CommandResult); !ok || !proto.Equal(again, first) || latest(f.store).Len() != 0 {
			t.Errorf("the repetition: %v, %d objects", again, latest(f.store).Len())
		}
	}
	for i := range maxRecent {
		f.do(uint64(10+i), &pb.Command{Id: fmt.Append(nil, i)})
	}
	if len(f.recent.results) != maxRecent || len(f.recent.all()) != maxRecent {
		t.Errorf("%d results are remembered", len(f.recent.results))
	}
}

type sink struct{ bytes.Buffer }

func (s *sink) ID() string    { return "test" }
func (s *sink) Cancel() error { return nil }
func (s *sink) Close() error  { return nil }

func persisted(t testing.TB, f *fsm) io.ReadCloser {
	t.Helper()
	snapshot, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s sink
	if err := snapshot.Persist(&s); err != nil {
		t.Fatal(err)
	}
	return io.NopCloser(&s.Buffer)
}

// commands draws histories with guards that hold and guards that do not.
func commands(t *rapid.T) (out []*pb.Command) {
	object := rapid.Custom(func(t *rapid.T) *pb.Object {
		return gateway(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "cluster"), rapid.SampledFrom([]string{"g", "h", "i"}).Draw(t, "name"), rapid.IntRange(0, 3).Draw(t, "port"))
	})
	key := rapid.SampledFrom([]string{"gateway/a/g", "gateway/a/h", "gateway/b/i", "nonsense", ""})
	guard := rapid.Custom(func(t *rapid.T) *pb.Guard {
		switch rapid.IntRange(0, 2).Draw(t, "guard") {
		case 0:
			return holds(key.Draw(t, "key"), nil)
		case 1:
			return holds(key.Draw(t, "key"), gateway("a", "g", 1))
		}
		return newer(rapid.Uint64Range(0, 3).Draw(t, "epoch"), rapid.Uint64Range(0, 3).Draw(t, "sequence"))
	})
	part := rapid.Custom(func(t *rapid.T) *pb.CommandPart {
		return &pb.CommandPart{
			Guards: rapid.SliceOfN(guard, 0, 2).Draw(t, "guards"), Upserts: rapid.SliceOfN(object, 0, 3).Draw(t, "upserts"),
			Deletes: rapid.SliceOfN(key, 0, 2).Draw(t, "deletes"),
		}
	})
	for range rapid.IntRange(1, 20).Draw(t, "n") {
		out = append(out, &pb.Command{Parts: rapid.SliceOfN(part, 0, 3).Draw(t, "parts"), Id: []byte(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "id"))})
	}
	return out
}

// doBatches applies history in batches of any size, some commands past the log as the leader does.
func (f *fsm) doBatches(t *rapid.T, history []*pb.Command) {
	var batch []*raft.Log
	for i, command := range history {
		entry := &raft.Log{Index: uint64(i + 1), Type: raft.LogCommand}
		entry.Data, _ = proto.Marshal(command)
		if checked, err := decodeCommand(command); err == nil && rapid.Bool().Draw(t, "prepared") {
			defer f.ready.add(entry.Data, checked)()
		}
		if batch = append(batch, entry); rapid.Bool().Draw(t, "cut") || i == len(history)-1 {
			f.ApplyBatch(batch)
			batch = nil
		}
	}
}

// R3: three replicas, of which one restarts from a snapshot in between and one gets its entries in batches.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := commands(rt)
		a, b, c := newFSM(), newFSM(), newFSM()
		cut := rapid.IntRange(0, len(history)).Draw(rt, "cut")
		for i, command := range history {
			if i == cut {
				b = newFSM()
				if err := b.Restore(persisted(t, a)); err != nil {
					rt.Fatal(err)
				}
			}
			x, y := a.do(uint64(i+1), command), b.do(uint64(i+1), command)
			if fmt.Sprint(x) != fmt.Sprint(y) {
				rt.Fatalf("command %d: %v and %v", i, x, y)
			}
			a.do(uint64(i+1), command) // an entry that comes twice
		}
		c.doBatches(rt, history)
		if digest(latest(a.store)) != digest(latest(b.store)) || digest(latest(a.store)) != digest(latest(c.store)) {
			rt.Fatal("states differ")
		}
		x, _ := io.ReadAll(persisted(t, a))
		if y, _ := io.ReadAll(persisted(t, c)); !bytes.Equal(x, y) {
			rt.Fatal("snapshots differ: revision or recent results")
		}
	})
}

func FuzzApply(f *testing.F) {
	seed := func(c *pb.Command) {
		data, _ := proto.Marshal(c)
		f.Add(data)
	}
	seed(put(gateway("a", "g", 1), cursor(1, 2)))
	seed(&pb.Command{Id: []byte("x"), Parts: []*pb.CommandPart{{Guards: []*pb.Guard{newer(1, 1), holds("gateway/a/g", gateway("a", "g", 1)), {}}, Deletes: []string{"", "cluster/"}}}})
	f.Add([]byte{0x0a, 0x02, 0x12, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := newFSM(), newFSM()
		for i := range 2 {
			x, y := a.Apply(&raft.Log{Index: uint64(i + 1), Data: data}), b.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
			if fmt.Sprint(x) != fmt.Sprint(y) || digest(latest(a.store)) != digest(latest(b.store)) {
				t.Fatal("two replicas differ")
			}
		}
		restored := newFSM()
		if err := restored.Restore(persisted(t, a)); err != nil || digest(latest(restored.store)) != digest(latest(a.store)) {
			t.Fatalf("what was applied cannot be restored: %v", err)
		}
	})
}
