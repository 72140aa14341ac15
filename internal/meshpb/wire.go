package meshpb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/wire"
)

// Decoder reads objects that come one after another, as those of a command or a snapshot do: what neighbours have in
// common they share in memory. The zero Decoder is ready. It keeps nothing of the data, and is not safe for concurrent use.
//
// Endpoint slices, of which storms consist, are read field by field, if they stand as [Marshal] writes them; all else goes
// through the generated messages.
type Decoder struct {
	// The newest of each word, so that the next that is equal is the same string.
	namespace, service, cluster, slice, endpoint, network, region, zone, subzone string
	// The newest of what takes work to make.
	id     spiffeid.ID
	ports  map[string]uint16
	labels map[string]string
	// Room, used again.
	portEntries, labelEntries []entry
}

// Unmarshal reads what [Marshal] wrote, or anything else, safely. The object shares maps and strings with those before it.
func (d *Decoder) Unmarshal(data []byte) (mesh.Object, error) {
	if slice, ok := d.object(data); ok {
		if err := slice.Validate(); err != nil {
			return nil, err
		}
		return slice, nil
	}
	var o pb.Object
	if err := proto.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("mesh object: %w", err)
	}
	return Decode(&o)
}

// The methods below tell whether they could read what they were given. What they cannot is not always wrong: a field that
// is unknown, twice or out of order is left to the generated messages, and so is the error for nonsense. Field numbers are
// those of api/periplus/v1/mesh.proto.

func (d *Decoder) object(data []byte) (*mesh.EndpointSlice, bool) {
	f := wire.Walk(data, 0)
	if !f.Next() || f.Tag != 3<<3|wire.Delimited || !f.Done() { // endpoint_slice
		return nil, false
	}
	out := new(mesh.EndpointSlice)
	return out, d.endpointSlice(f.Value(), out)
}

func (d *Decoder) endpointSlice(data []byte, out *mesh.EndpointSlice) bool {
	const endpoints = 4<<3 | wire.Delimited
	n := wire.Count(data, endpoints)
	if n > mesh.MaxEndpointsPerSlice {
		return false
	}
	out.Endpoints = make([]mesh.Endpoint, 0, n)
	f := wire.Walk(data, 1<<4)
	for f.Next() {
		switch f.Tag {
		case 1<<3 | wire.Delimited:
			f.Bad = !d.serviceName(f.Value(), &out.Service)
		case 2<<3 | wire.Delimited:
			out.Cluster = mesh.ClusterID(f.Word(&d.cluster))
		case 3<<3 | wire.Delimited:
			out.Slice = f.Word(&d.slice)
		case endpoints:
			out.Endpoints = append(out.Endpoints, mesh.Endpoint{})
			f.Bad = !d.anEndpoint(f.Value(), &out.Endpoints[len(out.Endpoints)-1])
		default:
			return false
		}
	}
	return !f.Bad
}

func (d *Decoder) serviceName(data []byte, out *mesh.ServiceName) bool {
	f := wire.Walk(data, 0)
	for f.Next() {
		switch f.Tag {
		case 1<<3 | wire.Delimited:
			out.Namespace = f.Word(&d.namespace)
		case 2<<3 | wire.Delimited:
			out.Name = f.Word(&d.service)
		default:
			return false
		}
	}
	return !f.Bad
}

func (d *Decoder) anEndpoint(data []byte, out *mesh.Endpoint) bool {
	out.Health, out.Weight = mesh.Healthy, 1
	d.portEntries, d.labelEntries = d.portEntries[:0], d.labelEntries[:0]
	f := wire.Walk(data, 1<<3|1<<8)
	for f.Next() {
		switch f.Tag {
		case 1<<3 | wire.Delimited:
			out.Name = f.Word(&d.endpoint)
		case 2<<3 | wire.Delimited:
			f.Bad = !address(f.Value(), &out.Address)
		case 3<<3 | wire.Delimited:
			d.portEntries, f.Bad = appendPort(d.portEntries, f.Value())
		case 4<<3 | wire.Delimited:
			out.Network = mesh.Network(f.Word(&d.network))
		case 5<<3 | wire.Delimited:
			f.Bad = !d.locality(f.Value(), &out.Locality)
		case 6<<3 | wire.Varint:
			out.Health = DecodeHealth(pb.Health(f.Number))
		case 7<<3 | wire.Varint:
			out.Weight = max(uint32(f.Number), 1)
		case 8<<3 | wire.Delimited:
			d.labelEntries, f.Bad = appendLabel(d.labelEntries, f.Value())
		case 9<<3 | wire.Delimited:
			f.Bad = !d.spiffeID(f.Value(), &out.Identity)
		default:
			return false
		}
	}
	return !f.Bad && out.Address.IsValid() &&
		share(&d.ports, d.portEntries, ports, &out.Ports) && share(&d.labels, d.labelEntries, labels, &out.Labels)
}

func (d *Decoder) locality(data []byte, out *mesh.Locality) bool {
	f := wire.Walk(data, 0)
	for f.Next() {
		switch f.Tag {
		case 1<<3 | wire.Delimited:
			out.Region = f.Word(&d.region)
		case 2<<3 | wire.Delimited:
			out.Zone = f.Word(&d.zone)
		case 3<<3 | wire.Delimited:
			out.Subzone = f.Word(&d.subzone)
		default:
			return false
		}
	}
	return !f.Bad
}

func (d *Decoder) spiffeID(text []byte, out *spiffeid.ID) bool {
	if string(text) != d.id.String() {
		id, err := spiffeid.FromString(string(text))
		if err != nil {
			return false
		}
		d.id = id
	}
	*out = d.id
	return true
}

func address(text []byte, out *netip.Addr) bool {
	a, err := netip.ParseAddr(string(text))
	*out = a
	return err == nil && a.Zone() == "" // a zone may be anything, and is not valid
}

// entry is one of a map from names to ports or to labels.
type entry struct {
	key, label []byte
	port       uint16
}

// kind is what the values of a map are.
type kind[V any] struct {
	of func(entry) V
	is func(entry, V) bool
}

var (
	ports  = kind[uint16]{func(e entry) uint16 { return e.port }, func(e entry, v uint16) bool { return e.port == v }}
	labels = kind[string]{func(e entry) string { return string(e.label) }, func(e entry, v string) bool { return string(e.label) == v }}
)

func appendPort(entries []entry, data []byte) (_ []entry, bad bool) {
	f := wire.Walk(data, 0)
	if !f.Next() || f.Tag != 1<<3|wire.Delimited {
		return entries, true
	}
	e := entry{key: f.Text()}
	if !f.Next() || f.Tag != 2<<3|wire.Varint || f.Number == 0 || f.Number > math.MaxUint16 || !f.Done() {
		return entries, true
	}
	e.port = uint16(f.Number)
	return append(entries, e), false
}

func appendLabel(entries []entry, data []byte) (_ []entry, bad bool) {
	f := wire.Walk(data, 0)
	if !f.Next() || f.Tag != 1<<3|wire.Delimited {
		return entries, true
	}
	e := entry{key: f.Text()}
	if !f.Next() || f.Tag != 2<<3|wire.Delimited || !f.Done() {
		return entries, true
	}
	e.label = f.Text()
	return append(entries, e), f.Bad
}

// share makes the map of the entries, or takes the last one if it is equal. Two entries of one key, and very many, are left
// to the generated messages.
func share[V any](last *map[string]V, entries []entry, values kind[V], out *map[string]V) bool {
	if len(entries) == 0 {
		return true
	}
	if len(entries) > mesh.MaxLabels {
		return false
	}
	if !same(*last, entries, values) {
		made := make(map[string]V, len(entries))
		for _, e := range entries {
			made[string(e.key)] = values.of(e)
		}
		if len(made) != len(entries) {
			return false
		}
		*last = made
	}
	*out = *last
	return true
}

func same[V any](m map[string]V, entries []entry, values kind[V]) bool {
	if len(m) != len(entries) {
		return false
	}
	for i, e := range entries {
		if v, ok := m[string(e.key)]; !ok || !values.is(e, v) {
			return false
		}
		if slices.ContainsFunc(entries[:i], func(before entry) bool { return string(before.key) == string(e.key) }) {
			return false
		}
	}
	return true
}

// appendSlice appends an Object. What is valid has no text that is not ASCII.
func appendSlice(b []byte, e *mesh.EndpointSlice) []byte {
	b = slices.Grow(b, 128+192*len(e.Endpoints))
	return wire.AppendMessage(b, 3, func(b []byte) []byte { // endpoint_slice
		b = wire.AppendMessage(b, 1, func(b []byte) []byte {
			return wire.AppendText(wire.AppendText(b, 1, e.Service.Namespace), 2, e.Service.Name)
		})
		b = wire.AppendText(b, 2, string(e.Cluster))
		b = wire.AppendText(b, 3, e.Slice)
		for i := range e.Endpoints {
			b = wire.AppendMessage(b, 4, func(b []byte) []byte { return appendEndpoint(b, &e.Endpoints[i]) })
		}
		return b
	})
}

func appendEndpoint(b []byte, e *mesh.Endpoint) []byte {
	b = wire.AppendText(b, 1, e.Name)
	b = wire.AppendMessage(b, 2, e.Address.AppendTo)
	var room [8]string
	for _, name := range names(room[:0], e.Ports) {
		b = wire.AppendMessage(b, 3, func(b []byte) []byte {
			return wire.AppendNumber(wire.AppendString(b, 1, name), 2, uint64(e.Ports[name]))
		})
	}
	b = wire.AppendText(b, 4, string(e.Network))
	b = wire.AppendMessage(b, 5, func(b []byte) []byte { // locality
		return wire.AppendText(wire.AppendText(wire.AppendText(b, 1, e.Locality.Region), 2, e.Locality.Zone), 3, e.Locality.Subzone)
	})
	b = wire.AppendNumber(b, 6, uint64(healths[e.Health]))
	b = wire.AppendNumber(b, 7, uint64(e.Weight))
	for _, name := range names(room[:0], e.Labels) {
		b = wire.AppendMessage(b, 8, func(b []byte) []byte {
			return wire.AppendString(wire.AppendString(b, 1, name), 2, e.Labels[name])
		})
	}
	return wire.AppendText(b, 9, e.Identity.String())
}

// names appends the keys of m, in order.
func names[V any](to []string, m map[string]V) []string {
	for name := range m {
		to = append(to, name)
	}
	slices.Sort(to)
	return to
}
