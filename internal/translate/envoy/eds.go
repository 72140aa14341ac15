package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// MetadataFilter is the filter name of an endpoint's metadata: cluster, network, workload (strings), gateway (bool)
// and stands_for (number).
const MetadataFilter = "periplus"

// LoadAssignment is the EDS resource for r: the assignment, without its reasons.
func LoadAssignment(s *mesh.Snapshot, v translate.View, r translate.Request) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: v.RequestName(r)}
	for priority, level := range translate.Assign(s, v, r).Levels {
		var group *endpointv3.LocalityLbEndpoints
		for i := range level {
			p := &level[i]
			if i == 0 || p.Locality != level[i-1].Locality {
				group = localityGroup(p, uint32(priority))
				out.Endpoints = append(out.Endpoints, group)
			}
			group.LbEndpoints = append(group.LbEndpoints, lbEndpoint(p))
		}
	}
	return out
}

func localityGroup(p *translate.Placed, priority uint32) *endpointv3.LocalityLbEndpoints {
	return &endpointv3.LocalityLbEndpoints{
		Priority:            priority,
		Locality:            &corev3.Locality{Region: p.Locality.Region, Zone: p.Locality.Zone, SubZone: p.Locality.Subzone},
		LoadBalancingWeight: wrapperspb.UInt32(p.LocalityWeight),
	}
}

var healthStatus = map[mesh.Health]corev3.HealthStatus{
	mesh.Healthy:   corev3.HealthStatus_HEALTHY,
	mesh.Unhealthy: corev3.HealthStatus_UNHEALTHY,
}

func lbEndpoint(p *translate.Placed) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
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
	}
}
