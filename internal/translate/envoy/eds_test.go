package envoy

import (
	"bytes"
	"net/netip"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// What is written field by field is, byte for byte, what the generated messages marshal to.
func TestLoadAssignmentIsTheMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		levels := rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(placed), 0, 5), 0, 3).Draw(t, "levels")
		name := rapid.SampledFrom([]string{"", "outbound|80||catalog.shop.svc.cluster.local"}).Draw(t, "name")
		message := messageOf(name, levels)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		got := loadAssignment(name, levels)
		if bytes.Equal(got, want) {
			return
		}
		var read endpointv3.ClusterLoadAssignment
		err = proto.Unmarshal(got, &read)
		t.Fatalf("%v\ngot:\n%s\nwant:\n%s\nbytes %x\nwant  %x", err, prototext.Format(&read), prototext.Format(message), got, want)
	})
}

func placed(t *rapid.T) translate.Placed {
	text := rapid.SampledFrom([]string{"", "a", "eu-west", string(bytes.Repeat([]byte("long"), 50)), string(bytes.Repeat([]byte("longer"), 5000))})
	number := rapid.SampledFrom([]uint32{0, 1, 127, 128, 1<<32 - 1})
	address := rapid.SampledFrom([]string{"10.0.0.1", "2001:db8::1", "fe80::1%eth0", "::ffff:10.0.0.1"}).Draw(t, "address")
	return translate.Placed{
		Name: text.Draw(t, "name"), Cluster: mesh.ClusterID(text.Draw(t, "cluster")), Network: mesh.Network(text.Draw(t, "network")),
		Address:  netip.AddrPortFrom(netip.MustParseAddr(address), uint16(number.Draw(t, "port"))),
		Locality: mesh.Locality{Region: text.Draw(t, "region"), Zone: text.Draw(t, "zone"), Subzone: text.Draw(t, "subzone")},
		Health:   rapid.SampledFrom([]mesh.Health{mesh.Healthy, mesh.Unhealthy, mesh.Draining}).Draw(t, "health"),
		Weight:   number.Draw(t, "weight"), LocalityWeight: number.Draw(t, "locality weight"),
		Gateway: rapid.Bool().Draw(t, "gateway"), StandsFor: number.Draw(t, "stands for"),
	}
}

func messageOf(name string, levels [][]translate.Placed) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for priority, level := range levels {
		var group *endpointv3.LocalityLbEndpoints
		for i, p := range level {
			if i == 0 || p.Locality != level[i-1].Locality {
				group = &endpointv3.LocalityLbEndpoints{
					Priority:            uint32(priority),
					Locality:            &corev3.Locality{Region: p.Locality.Region, Zone: p.Locality.Zone, SubZone: p.Locality.Subzone},
					LoadBalancingWeight: wrapperspb.UInt32(p.LocalityWeight),
				}
				out.Endpoints = append(out.Endpoints, group)
			}
			group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
					Address: socketAddress(p.Address.Addr().String(), p.Address.Port()),
				}},
				HealthStatus:        healthStatus[p.Health],
				LoadBalancingWeight: wrapperspb.UInt32(p.Weight),
				Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{MetadataFilter: {
					Fields: map[string]*structpb.Value{
						"cluster":    structpb.NewStringValue(string(p.Cluster)),
						"network":    structpb.NewStringValue(string(p.Network)),
						"workload":   structpb.NewStringValue(p.Name),
						"gateway":    structpb.NewBoolValue(p.Gateway),
						"stands_for": structpb.NewNumberValue(float64(p.StandsFor)),
					},
				}}},
			})
		}
	}
	return out
}
