package envoy

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/wire"
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
	out := wire.AppendText(make([]byte, 0, size), 1, name) // ClusterLoadAssignment.cluster_name
	for priority, level := range levels {
		for len(level) > 0 {
			n := 1
			for n < len(level) && level[n].Locality == level[0].Locality {
				n++
			}
			group := level[:n]
			level = level[n:]
			out = wire.AppendMessage(out, 2, func(b []byte) []byte { return appendGroup(b, group, uint32(priority)) }) // endpoints
		}
	}
	return out
}

// appendGroup appends a LocalityLbEndpoints.
func appendGroup(b []byte, group []translate.Placed, priority uint32) []byte {
	b = wire.AppendMessage(b, 1, func(b []byte) []byte { // locality
		at := &group[0].Locality
		return wire.AppendText(wire.AppendText(wire.AppendText(b, 1, at.Region), 2, at.Zone), 3, at.Subzone)
	})
	for i := range group {
		b = wire.AppendMessage(b, 2, func(b []byte) []byte { return appendEndpoint(b, &group[i]) }) // lb_endpoints
	}
	b = appendWeight(b, 3, group[0].LocalityWeight)  // load_balancing_weight
	return wire.AppendNumber(b, 5, uint64(priority)) // priority
}

var healthStatus = map[mesh.Health]corev3.HealthStatus{
	mesh.Healthy:   corev3.HealthStatus_HEALTHY,
	mesh.Unhealthy: corev3.HealthStatus_UNHEALTHY,
}

// appendEndpoint appends an LbEndpoint. As in the generated code, what is of a oneof comes last.
func appendEndpoint(b []byte, p *translate.Placed) []byte {
	b = wire.AppendNumber(b, 2, uint64(healthStatus[p.Health])) // health_status
	b = wire.AppendMessage(b, 3, func(b []byte) []byte {        // metadata
		return wire.AppendMessage(b, 1, func(b []byte) []byte { // filter_metadata
			b = wire.AppendText(b, 1, MetadataFilter)
			return wire.AppendMessage(b, 2, func(b []byte) []byte { return appendMetadata(b, p) })
		})
	})
	b = appendWeight(b, 4, p.Weight)                        // load_balancing_weight
	return wire.AppendMessage(b, 1, func(b []byte) []byte { // endpoint, of a oneof
		return wire.AppendMessage(b, 1, func(b []byte) []byte { // address
			return wire.AppendMessage(b, 1, func(b []byte) []byte { // socket_address
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
	b = appendMember(b, "cluster", func(b []byte) []byte { return wire.AppendString(b, 3, string(p.Cluster)) })
	b = appendMember(b, "gateway", func(b []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), protowire.EncodeBool(p.Gateway)) // bool_value
	})
	b = appendMember(b, "network", func(b []byte) []byte { return wire.AppendString(b, 3, string(p.Network)) })
	b = appendMember(b, "stands_for", func(b []byte) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(b, 2, protowire.Fixed64Type), math.Float64bits(float64(p.StandsFor))) // number_value
	})
	return appendMember(b, "workload", func(b []byte) []byte { return wire.AppendString(b, 3, p.Name) })
}

// appendMember appends one of Struct.fields.
func appendMember(b []byte, key string, value func([]byte) []byte) []byte {
	return wire.AppendMessage(b, 1, func(b []byte) []byte { return wire.AppendMessage(wire.AppendText(b, 1, key), 2, value) })
}

// appendWeight appends a UInt32Value.
func appendWeight(b []byte, field protowire.Number, weight uint32) []byte {
	return wire.AppendMessage(b, field, func(b []byte) []byte { return wire.AppendNumber(b, 1, uint64(weight)) })
}
