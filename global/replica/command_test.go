package replica

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// generatedCommand is what the generated messages make of data.
func generatedCommand(data []byte) (*command, bool) {
	var c pb.Command
	if proto.Unmarshal(data, &c) != nil {
		return nil, false
	}
	out, err := decodeCommand(&c)
	return out, err == nil
}

func sameCommand(a, b *command) bool {
	return bytes.Equal(a.id, b.id) && slices.EqualFunc(a.parts, b.parts, func(a, b part) bool {
		return slices.EqualFunc(a.guards, b.guards, func(a, b *pb.Guard) bool { return proto.Equal(a, b) }) &&
			slices.EqualFunc(a.upserts, b.upserts, func(a, b mesh.Object) bool { return reflect.DeepEqual(a, b) }) && slices.Equal(a.deletes, b.deletes)
	})
}

// checkCommand reads data as the generated messages do, keeps nothing of it, and writes it so that it is read the same.
func checkCommand(t rapid.TB, data []byte) {
	t.Helper()
	want, ok := generatedCommand(data)
	data = bytes.Clone(data)
	got, err := unmarshalCommand(data)
	clear(data)
	if (err == nil) != ok || ok && !sameCommand(got, want) {
		t.Fatalf("%+v (%v), want %+v", got, err, want)
	}
	if err != nil {
		return
	}
	written, err := got.marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, ok := generatedCommand(written); !ok || !sameCommand(again, want) {
		t.Fatalf("written as %x, which is %+v, want %+v", written, again, want)
	}
}

func TestCommandsAreReadAsGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for i, c := range commands(t) {
			if i%2 == 0 && len(c.GetParts()) > 0 {
				p := c.Parts[0]
				p.Upserts = append(p.Upserts, slice(i), slice(i+1), slice(i+1000))
			}
			data, err := proto.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			checkCommand(t, data)
		}
	})
}

func FuzzCommand(f *testing.F) {
	full, err := proto.Marshal(&pb.Command{Id: []byte("x"), Parts: []*pb.CommandPart{
		{Guards: []*pb.Guard{newer(1, 1), holds("gateway/a/g", gateway("a", "g", 1))}, Upserts: []*pb.Object{slice(1), slice(2)}, Deletes: []string{"", "cluster/"}},
		{Upserts: []*pb.Object{gateway("a", "g", 1), cursor(1, 2)}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	field := func(n protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), value)
	}
	for _, data := range [][]byte{
		full, slices.Concat(full, full), slices.Concat(field(99, "later"), full), // unknown, and an id twice
		field(1, string(field(1, ""))), field(1, string(field(2, ""))), field(1, string(field(3, "\xff"))), field(1, string(field(9, "later"))),
		full[:len(full)-1], full[1:], {0x08, 0x01}, {0x0b, 0x0c}, {0x0b}, {0x00}, {},
		{0xd0, 0xef, 0xef, 0xef, 0x30, 0xef, 0x30}, // a field number past the largest
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkCommand(t, data) })
}

// What followers would refuse must not be led past them.
func TestCommandsThatCannotBeWritten(t *testing.T) {
	for what, p := range map[string]*pb.CommandPart{
		"key":    {Deletes: []string{"\xff"}},
		"guard":  {Guards: []*pb.Guard{holds("\xff", nil)}},
		"object": {Upserts: []*pb.Object{{Kind: &pb.Object_RemovedReplica{RemovedReplica: &pb.RemovedReplica{Id: "\xff"}}}}},
		"slice":  {Upserts: []*pb.Object{{Kind: &pb.Object_EndpointSlice{EndpointSlice: &pb.EndpointSlice{Slice: "\xff"}}}}},
	} {
		checked, err := decodeCommand(&pb.Command{Parts: []*pb.CommandPart{{}, p, {}}})
		if err == nil {
			_, err = checked.marshal()
		}
		if err == nil {
			t.Errorf("%s: written", what)
		}
	}
}
