package envoy

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// MetadataFilter is the filter name of an endpoint's metadata: cluster, network, workload (strings), gateway (bool)
// and stands_for (number).
const MetadataFilter = "periplus"

// LoadAssignment is the EDS resource for r, a marshalled ClusterLoadAssignment: the assignment, without its reasons.
//
// It is the one resource that is written field by field: each change of an endpoint makes one for every view, and the
// generated messages were four fifths of what that cost (BenchmarkEDS). The bytes are those of the messages, marshalled
// deterministically.
func LoadAssignment(s *mesh.Snapshot, v translate.View, r translate.Request) []byte {
	return loadAssignment(v.RequestName(r), translate.Assign(s, v, r).Levels)
}

// Field numbers are those of envoy/config/endpoint/v3/{endpoint,endpoint_components}.proto,
// envoy/config/core/v3/{base,address}.proto and google/protobuf/{struct,wrappers}.proto.

func loadAssignment(name string, levels [][]translate.Placed) []byte {
	size := len(name) + 16
	for _, level := range levels {
		size += len(level) * 256
	}
	out := appendText(make([]byte, 0, size), 1, name) // ClusterLoadAssignment.cluster_name
	for priority, level := range levels {
		for len(level) > 0 {
			n := 1
			for n < len(level) && level[n].Locality == level[0].Locality {
				n++
			}
			group := level[:n]
			level = level[n:]
			out = appendMessage(out, 2, func(b []byte) []byte { return appendGroup(b, group, uint32(priority)) }) // endpoints
		}
	}
	return out
}

// appendGroup appends a LocalityLbEndpoints.
func appendGroup(b []byte, group []translate.Placed, priority uint32) []byte {
	b = appendMessage(b, 1, func(b []byte) []byte { // locality
		at := &group[0].Locality
		return appendText(appendText(appendText(b, 1, at.Region), 2, at.Zone), 3, at.Subzone)
	})
	for i := range group {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendEndpoint(b, &group[i]) }) // lb_endpoints
	}
	b = appendWeight(b, 3, group[0].LocalityWeight) // load_balancing_weight
	return appendNumber(b, 5, uint64(priority))     // priority
}

var healthStatus = map[mesh.Health]corev3.HealthStatus{
	mesh.Healthy:   corev3.HealthStatus_HEALTHY,
	mesh.Unhealthy: corev3.HealthStatus_UNHEALTHY,
}

// appendEndpoint appends an LbEndpoint. As in the generated code, what is of a oneof comes last.
func appendEndpoint(b []byte, p *translate.Placed) []byte {
	b = appendNumber(b, 2, uint64(healthStatus[p.Health])) // health_status
	b = appendMessage(b, 3, func(b []byte) []byte {        // metadata
		return appendMessage(b, 1, func(b []byte) []byte { // filter_metadata
			b = appendText(b, 1, MetadataFilter)
			return appendMessage(b, 2, func(b []byte) []byte { return appendMetadata(b, p) })
		})
	})
	b = appendWeight(b, 4, p.Weight)                   // load_balancing_weight
	return appendMessage(b, 1, func(b []byte) []byte { // endpoint, of a oneof
		return appendMessage(b, 1, func(b []byte) []byte { // address
			return appendMessage(b, 1, func(b []byte) []byte { // socket_address
				var text [45]byte
				b = protowire.AppendTag(b, 2, protowire.BytesType) // address
				b = protowire.AppendBytes(b, p.Address.Addr().AppendTo(text[:0]))
				b = protowire.AppendTag(b, 3, protowire.VarintType) // port_value, of a oneof
				return protowire.AppendVarint(b, uint64(p.Address.Port()))
			})
		})
	})
}

// appendMetadata appends a Struct, whose keys are in order.
func appendMetadata(b []byte, p *translate.Placed) []byte {
	b = appendMember(b, "cluster", func(b []byte) []byte { return appendString(b, string(p.Cluster)) })
	b = appendMember(b, "gateway", func(b []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), protowire.EncodeBool(p.Gateway)) // bool_value
	})
	b = appendMember(b, "network", func(b []byte) []byte { return appendString(b, string(p.Network)) })
	b = appendMember(b, "stands_for", func(b []byte) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(b, 2, protowire.Fixed64Type), math.Float64bits(float64(p.StandsFor))) // number_value
	})
	return appendMember(b, "workload", func(b []byte) []byte { return appendString(b, p.Name) })
}

// appendMember appends one of Struct.fields.
func appendMember(b []byte, key string, value func([]byte) []byte) []byte {
	return appendMessage(b, 1, func(b []byte) []byte { return appendMessage(appendText(b, 1, key), 2, value) })
}

// appendString appends Value.string_value, of a oneof.
func appendString(b []byte, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), s)
}

// appendWeight appends a UInt32Value.
func appendWeight(b []byte, field protowire.Number, weight uint32) []byte {
	return appendMessage(b, field, func(b []byte) []byte { return appendNumber(b, 1, uint64(weight)) })
}

// appendText appends a string, unless it is the default.
func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// appendNumber appends an integer, unless it is the default.
func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

// appendMessage appends what fill does, as a field, with its length before it.
func appendMessage(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	start := len(b) + 1
	b = fill(append(b, 0)) // room for the length of a short one
	size := len(b) - start
	if more := protowire.SizeVarint(uint64(size)) - 1; more > 0 {
		b = append(b, make([]byte, more)...)
		copy(b[start+more:], b[start:start+size])
	}
	protowire.AppendVarint(b[:start-1], uint64(size))
	return b
}
