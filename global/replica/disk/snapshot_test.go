package disk

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// stream is a snapshot of n gateways and n recent results, at revision n.
func stream(t testing.TB, n int) []byte {
	t.Helper()
	var d mesh.Delta
	var results []Remembered
	for i := range n {
		d.Upserts = append(d.Upserts, &mesh.Gateway{
			Cluster: "a", Name: fmt.Sprintf("g%d", i), Network: "n1", Address: netip.MustParseAddr("10.0.0.1"), Port: uint16(i + 1), Health: mesh.Healthy,
		})
		results = append(results, Remembered{fmt.Append(nil, i), &pb.CommandResult{Index: uint64(i + 1), Applied: []bool{true}}})
	}
	var out bytes.Buffer
	if err := WriteSnapshot(&out, new(mesh.Store).Commit(mesh.Revision(n), d), results); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	whole := stream(t, 300)
	for i := range whole {
		spoiled := bytes.Clone(whole)
		spoiled[i] ^= 1 << (i % 8)
		if _, _, _, err := ReadSnapshot(bytes.NewReader(spoiled)); err == nil {
			t.Fatalf("byte %d of %d flipped and not noticed", i, len(whole))
		}
		if _, _, _, err := ReadSnapshot(bytes.NewReader(whole[:i])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut after %d of %d bytes: %v", i, len(whole), err)
		}
	}
	revision, objects, results, err := ReadSnapshot(bytes.NewReader(whole))
	if err != nil || revision != 300 || len(objects) != 300 || len(results) != 300 {
		t.Errorf("the whole one: revision %d, %d objects, %d results, %v", revision, len(objects), len(results), err)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	whole := stream(f, 1)
	f.Add(whole)
	f.Add(whole[:headerBytes])
	f.Fuzz(func(t *testing.T, data []byte) {
		ReadSnapshot(bytes.NewReader(data))
	})
}
