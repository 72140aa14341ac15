package meshpb

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// generated is what the generated messages make of data.
func generated(data []byte) (mesh.Object, error) {
	var o pb.Object
	if err := proto.Unmarshal(data, &o); err != nil {
		return nil, err
	}
	return Decode(&o)
}

// some draws one of a few values, so that neighbours often have the same, and one in eight times one of the wild.
func some[V any](t *rapid.T, what string, values []V, wild ...V) V {
	if len(wild) > 0 && rapid.IntRange(0, 7).Draw(t, "wild") == 7 {
		values = wild
	}
	return rapid.SampledFrom(values).Draw(t, what)
}

func drawSlice(t *rapid.T) *pb.Object {
	type s = []string
	slice := &pb.EndpointSlice{
		Service: &pb.ServiceName{Namespace: "shop", Name: some(t, "service", s{"catalog", "cart"})},
		Cluster: some(t, "cluster", s{"eu-west", "ap-south"}), Slice: some(t, "slice", s{"s", "t"}),
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "endpoints") {
		e := &pb.Endpoint{
			Name: fmt.Sprintf("e%d", i), Address: some(t, "address", s{"10.0.0.1", "fd00::1", "::ffff:10.0.0.1"}, "fe80::1%x", "0.0.0.0", "x", ""),
			Network: some(t, "network", s{"n1", "n2"}, ""), Health: some(t, "health", []pb.Health{0, 1, 2, 3}, -1, 4),
			Weight: some(t, "weight", []uint32{0, 1, 7, 300}, math.MaxUint32), Ports: map[string]uint32{}, Labels: map[string]string{},
			Identity: some(t, "identity", s{"", "spiffe://a/b", "spiffe://a/c"}, "?"),
		}
		for range rapid.IntRange(1, 3).Draw(t, "ports") {
			e.Ports[some(t, "port", s{"http", "grpc", "admin"})] = some(t, "number", []uint32{80, 8080}, 0, math.MaxUint16+1)
		}
		for range rapid.IntRange(0, 10).Draw(t, "labels") {
			e.Labels[fmt.Sprint("l", rapid.IntRange(0, 19).Draw(t, "label"))] = some(t, "value", s{"catalog", "cart", ""})
		}
		if rapid.Bool().Draw(t, "somewhere") {
			e.Locality = &pb.Locality{Region: some(t, "region", s{"eu", "us"}), Zone: some(t, "zone", s{"a", "b"}, ""), Subzone: some(t, "subzone", s{"", "r"})}
		}
		slice.Endpoints = append(slice.Endpoints, e)
	}
	return &pb.Object{Kind: &pb.Object_EndpointSlice{EndpointSlice: slice}}
}

// A decoder that has read others makes of a slice what the generated messages make of it, keeps nothing of the data, and
// leaves to them none that is valid.
func TestSlicesAreReadAsGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Decoder
		var got, want []mesh.Object
		for range rapid.IntRange(1, 5).Draw(t, "slices") {
			data, err := proto.MarshalOptions{Deterministic: rapid.Bool().Draw(t, "ordered")}.Marshal(drawSlice(t))
			if err != nil {
				t.Fatal(err)
			}
			right, why := generated(data)
			object, err := d.Unmarshal(data)
			if (err == nil) != (why == nil) {
				t.Fatalf("%v, want %v", err, why)
			}
			if _, ok := new(Decoder).object(data); why == nil && !ok {
				t.Fatalf("not read field by field: %x", data)
			}
			got, want = append(got, object), append(want, right)
			clear(data)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

// Slices are written as the generated messages are, to the byte: digests of replicas, and of programs before, are of those.
func TestSlicesAreWrittenAsGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		object, err := Decode(drawSlice(t))
		if err != nil {
			t.Skip(err)
		}
		checkWritten(t, object)
	})
}

func checkWritten(t rapid.TB, o mesh.Object) {
	t.Helper()
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(Encode(o))
	if err != nil {
		t.Fatal(err)
	}
	before := []byte("before")
	if got, err := Append(before, o); err != nil || !bytes.Equal(got[len(before):], want) || !bytes.HasPrefix(got, before) {
		t.Fatalf("%x, want %x (%v)", got, want, err)
	}
}

func TestNeighboursShare(t *testing.T) {
	slice := objects()[2].(*mesh.EndpointSlice)
	one := slice.Endpoints[0]
	other := one
	other.Name, other.Ports, other.Labels = "other", map[string]uint16{"http": 8080, "grpc": 9091}, map[string]string{"app": "catalog", "example.com/tier": "lead"}
	alike := other
	alike.Name = "alike"
	slice.Endpoints = []mesh.Endpoint{one, other, alike}
	object, err := Unmarshal(Marshal(slice))
	if err != nil || !reflect.DeepEqual(object, slice) {
		t.Fatalf("%+v, want %+v (%v)", object, slice, err)
	}
	is := func(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	e := object.(*mesh.EndpointSlice).Endpoints
	if !is(e[1].Ports, e[2].Ports) || !is(e[1].Labels, e[2].Labels) || is(e[0].Ports, e[1].Ports) || is(e[0].Labels, e[1].Labels) {
		t.Errorf("not shared, or too much")
	}
}

// What is not as Marshal writes it means what protobuf says it means.
func TestUnusualSlices(t *testing.T) {
	field := func(n protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), value)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	text := func(n protowire.Number, s string) []byte { return field(n, []byte(s)) }
	number := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	head := join(field(1, join(text(1, "shop"), text(2, "catalog"))), text(2, "eu-west"), text(3, "s"))
	name, at, port, network := text(1, "e"), text(2, "10.0.0.1"), field(3, join(text(1, "http"), number(2, 80))), text(4, "n1")
	endpoint := join(name, at, port, network)
	slice := func(endpoint ...[]byte) []byte { return field(3, join(head, field(4, join(endpoint...)))) }
	many := make([][]byte, mesh.MaxLabels+1)
	for i := range many {
		many[i] = field(3, join(text(1, fmt.Sprintf("p%d", i)), number(2, 80)))
	}
	for what, data := range map[string][]byte{
		"usual": slice(endpoint), "with zeros": slice(endpoint, number(6, 0), number(7, 0)), "with numbers past 32 bits": slice(endpoint, number(6, 1<<32|1), number(7, 1<<32)),
	} {
		got, ok := new(Decoder).object(data)
		if want, err := generated(data); !ok || err != nil || !reflect.DeepEqual(mesh.Object(got), want) {
			t.Errorf("%s: %+v, want %+v (%v)", what, got, want, err)
		}
	}
	for what, data := range map[string][]byte{
		"unknown field of the object":   join(slice(endpoint), text(99, "x")),
		"unknown field of the slice":    field(3, join(head, field(4, endpoint), text(99, "x"))),
		"unknown field of the service":  field(3, join(field(1, join(text(1, "shop"), text(2, "catalog"), text(99, "x"))), text(2, "eu-west"), text(3, "s"))),
		"unknown field of an endpoint":  slice(endpoint, text(99, "x")),
		"unknown field of the locality": slice(endpoint, field(5, join(text(1, "eu"), text(4, "x")))),
		"unknown field of a port":       slice(name, at, field(3, join(text(1, "http"), number(2, 80), number(3, 1))), network),
		"unknown field of a label":      slice(endpoint, field(8, join(text(1, "a"), text(2, "b"), text(3, "c")))),
		"two parts of one slice":        join(slice(endpoint), field(3, field(4, join(text(1, "f"), at, port, network)))),
		"another kind after it":         join(slice(endpoint), field(10, text(1, "a"))),
		"another kind before it":        join(field(10, text(1, "a")), slice(endpoint)),
		"two service names":             field(3, join(field(1, join(text(1, "shop"), text(2, "cart"))), head, field(4, endpoint))),
		"two names":                     slice(text(1, "d"), endpoint),
		"two localities":                slice(endpoint, field(5, text(1, "eu")), field(5, text(2, "a"))),
		"name last":                     slice(at, port, network, name),
		"port without a number":         slice(name, at, field(3, text(1, "http")), network),
		"port without a name":           slice(name, at, field(3, number(2, 80)), network),
		"port of another type":          slice(name, at, field(3, join(text(1, "http"), text(2, "80"))), network),
		"port number before its name":   slice(name, at, field(3, join(number(2, 80), text(1, "http"))), network),
		"port 0":                        slice(name, at, field(3, join(text(1, "http"), number(2, 0))), network),
		"port 65536":                    slice(name, at, field(3, join(text(1, "http"), number(2, 65536))), network),
		"port of more than 32 bits":     slice(name, at, field(3, join(text(1, "http"), number(2, 1<<32+80))), network),
		"one port twice":                slice(name, at, port, field(3, join(text(1, "http"), number(2, 81))), network),
		"one port twice, the same":      slice(name, at, port, port, network),
		"one label twice":               slice(endpoint, field(8, join(text(1, "a"), text(2, "b"))), field(8, join(text(1, "a"), text(2, "c")))),
		"label without a value":         slice(endpoint, field(8, text(1, "a"))),
		"very many ports":               slice(name, at, join(many...), network),
		"no address":                    slice(name, port, network),
		"name that is not UTF-8":        slice(text(1, "\xff"), at, port, network),
		"zone that is not UTF-8":        slice(name, text(2, "fe80::1%\xff"), port, network),
		"label that is not UTF-8":       slice(endpoint, field(8, join(text(1, "a"), text(2, "\xff")))),
		"label whose name is not UTF-8": slice(endpoint, field(8, join(text(1, "\xff"), text(2, "a")))),
		"port whose name is not UTF-8":  slice(name, at, field(3, join(text(1, "\xff"), number(2, 80))), network),
		"identity that is none":         slice(endpoint, text(9, "spiffe://")),
		"weight of another type":        slice(endpoint, text(7, "x")),
		"weight as a fixed number":      slice(endpoint, protowire.AppendFixed32(protowire.AppendTag(nil, 7, protowire.Fixed32Type), 7)),
		"cut":                           slice(endpoint)[:20],
		"cut inside":                    slice(endpoint[:len(endpoint)-1]),
		"more endpoints than may be":    field(3, join(head, bytes.Repeat(field(4, endpoint), mesh.MaxEndpointsPerSlice+1))),
		"nothing":                       {},
	} {
		want, why := generated(data)
		// After one that is alike, with which it would share.
		var d Decoder
		if _, err := d.Unmarshal(slice(endpoint)); err != nil {
			t.Fatal(err)
		}
		if _, ok := d.object(data); ok {
			t.Errorf("%s: read field by field", what)
		}
		got, err := d.Unmarshal(data)
		if !reflect.DeepEqual(got, want) || (err == nil) != (why == nil) {
			t.Errorf("%s: %+v (%v), want %+v (%v)", what, got, err, want, why)
		}
	}
}

// Whatever it is, it is read as the generated messages read it, before and after others. What is accepted encodes to bytes
// that decode to the same again, and nothing panics.
func FuzzUnmarshal(f *testing.F) {
	for _, o := range objects() {
		f.Add(Marshal(o))
	}
	f.Add([]byte{})
	f.Add([]byte{0x1a, 0x02, 0x22, 0x00})
	usual := Marshal(objects()[2])
	f.Fuzz(func(t *testing.T, data []byte) {
		want, why := generated(data)
		var d Decoder
		if _, err := d.Unmarshal(usual); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if object, err := d.Unmarshal(data); (err == nil) != (why == nil) || !reflect.DeepEqual(object, want) {
				t.Fatalf("%+v (%v), want %+v (%v)", object, err, want, why)
			}
		}
		if why != nil {
			return
		}
		checkWritten(t, want)
		once := Marshal(want)
		again, err := Unmarshal(once)
		if err != nil {
			t.Fatalf("its own encoding is refused: %v", err)
		}
		if twice := Marshal(again); !bytes.Equal(once, twice) || again.Key() != want.Key() {
			t.Fatalf("encoding is not stable: %x and %x", once, twice)
		}
	})
}

// Alone: 3.4 to 5.6 us and 25 allocations; beside one that is alike 2.5 us and 4. With generated messages 6.5 to 9 us and 46.
func BenchmarkUnmarshalSlice(b *testing.B) {
	data := Marshal(objects()[2])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Unmarshal(data); err != nil {
			b.Fatal(err)
		}
	}
}

// 1.3 us and one allocation, with generated messages 7.8 us and 35.
func BenchmarkMarshalSlice(b *testing.B) {
	slice := objects()[2]
	b.ReportAllocs()
	for b.Loop() {
		Marshal(slice)
	}
}
