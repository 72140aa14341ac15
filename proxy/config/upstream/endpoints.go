package upstream

import (
	"cmp"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

// DefaultOverprovisioning is Envoy's, in percent.
const DefaultOverprovisioning = 140

// maxEndpoints of one assignment: more are refused.
const maxEndpoints = 100_000

// Endpoints decodes an assignment; host names are allowed only where the cluster resolves them.
func Endpoints(p field.Problems, pb *endpointv3.ClusterLoadAssignment, names bool) *config.Endpoints {
	policy := pb.GetPolicy()
	e := &config.Endpoints{
		Name:             pb.GetClusterName(),
		Overprovisioning: field.AtLeastOne(policy.GetOverprovisioningFactor(), DefaultOverprovisioning),
		WeightedPriority: policy.GetWeightedPriorityHealth(),
	}
	p.Unsupported("policy.endpoint_stale_after", policy.GetEndpointStaleAfter().AsDuration() > 0)
	p.Unsupported("named_endpoints", len(pb.GetNamedEndpoints()) > 0)
	drops := policy.GetDropOverloads()
	p.Limit("policy.drop_overloads", len(drops), 1)
	for i, drop := range drops {
		e.DropPermillion = p.At("policy.drop_overloads", i).Permillion(drop.GetDropPercentage().GetNumerator(), drop.GetDropPercentage().GetDenominator().String())
	}
	count := 0
	for i, pb := range pb.GetEndpoints() {
		if count += len(pb.GetLbEndpoints()); count > maxEndpoints {
			p.Refuse("endpoints", "has more than %d endpoints", maxEndpoints)
			return e
		}
		e.Localities = append(e.Localities, decodeLocality(p.At("endpoints", i), pb, names))
	}
	slices.SortStableFunc(e.Localities, compareLocalities)
	checkPriorities(p, e.Localities)
	return e
}

func compareLocalities(a, b config.Locality) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Region, b.Region),
		cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Subzone, b.Subzone))
}

// checkPriorities: no gaps, and the weights of one priority sum below 2^32 (Envoy's rule).
func checkPriorities(p field.Problems, localities []config.Locality) {
	next, sum := uint32(0), uint64(0)
	for i, l := range localities {
		switch {
		case i > 0 && l.Priority == localities[i-1].Priority:
		case l.Priority == next:
			next, sum = next+1, 0
		default:
			p.Refuse("endpoints", "priority %d is used, but %d is not", l.Priority, next)
		}
		if sum += uint64(l.Weight); sum > 1<<32-1 {
			p.Refuse("endpoints", "locality weights of priority %d sum above 2^32-1", l.Priority)
		}
	}
}

func decodeLocality(p field.Problems, pb *endpointv3.LocalityLbEndpoints, names bool) config.Locality {
	p.Unsupported("leds_cluster_locality_config", pb.GetLedsClusterLocalityConfig() != nil)
	p.Unsupported("load_balancer_endpoints", pb.GetLbConfig() != nil)
	if pb.GetPriority() > 128 {
		p.Refuse("priority", "%d is above 128", pb.GetPriority())
	}
	l := config.Locality{
		Region: pb.GetLocality().GetRegion(), Zone: pb.GetLocality().GetZone(), Subzone: pb.GetLocality().GetSubZone(),
		Priority: pb.GetPriority(), Weight: pb.GetLoadBalancingWeight().GetValue(),
		Endpoints: make([]config.Endpoint, 0, len(pb.GetLbEndpoints())),
	}
	sum := uint64(0)
	for i, pb := range pb.GetLbEndpoints() {
		endpoint := decodeEndpoint(p.At("lb_endpoints", i), pb, names)
		if sum += uint64(endpoint.Weight); sum > 1<<32-1 {
			p.Refuse("lb_endpoints", "weights sum above 2^32-1")
		}
		l.Endpoints = append(l.Endpoints, endpoint)
	}
	return l
}

// health follows the order of Envoy's HealthStatus.
var healthStates = map[corev3.HealthStatus]config.Health{
	corev3.HealthStatus_UNKNOWN: config.HealthUnknown, corev3.HealthStatus_HEALTHY: config.Healthy,
	corev3.HealthStatus_UNHEALTHY: config.Unhealthy, corev3.HealthStatus_DRAINING: config.Draining,
	corev3.HealthStatus_TIMEOUT: config.TimedOut, corev3.HealthStatus_DEGRADED: config.Degraded,
}

func decodeEndpoint(p field.Problems, pb *endpointv3.LbEndpoint, names bool) config.Endpoint {
	body := pb.GetEndpoint()
	if body == nil {
		p.Refuse("endpoint", "is missing")
		return config.Endpoint{}
	}
	e := config.Endpoint{
		Hostname: body.GetHostname(), Weight: field.AtLeastOne(pb.GetLoadBalancingWeight(), 1),
		Health:   healthStates[pb.GetHealthStatus()],
		NoChecks: body.GetHealthCheckConfig().GetDisableActiveHealthCheck(),
	}
	check := body.GetHealthCheckConfig()
	p.Unsupported("endpoint.health_check_config", check.GetHostname() != "" || check.GetAddress() != nil)
	if port := check.GetPortValue(); port != 0 {
		e.HealthPort = p.Port("endpoint.health_check_config.port_value", port)
	}
	decodeAddress(&e, p.In("endpoint.address"), body.GetAddress(), names)
	fields := pb.GetMetadata().GetFilterMetadata()[metadataKey].GetFields()
	e.Cluster, e.Network, e.Workload = field.Text(fields["cluster"]), field.Text(fields["network"]), field.Text(fields["workload"])
	e.Gateway = fields["gateway"].GetBoolValue()
	return e
}

// metadataKey of filter metadata on endpoints and clusters.
const metadataKey = "periplus"

func decodeAddress(e *config.Endpoint, p field.Problems, pb *corev3.Address, names bool) {
	address := pb.GetSocketAddress()
	if address == nil {
		p.Refuse("socket_address", "is missing; other kinds are not supported")
		return
	}
	e.Port = p.Port("socket_address.port_value", address.GetPortValue())
	ip, err := netip.ParseAddr(address.GetAddress())
	switch {
	case err == nil && (ip.IsUnspecified() || ip.IsMulticast()):
		p.Refuse("socket_address.address", "%q cannot be an endpoint", address.GetAddress())
	case err == nil:
		e.Address = netip.AddrPortFrom(ip.Unmap(), e.Port)
	case names && address.GetAddress() != "":
		e.Host = address.GetAddress()
	default:
		p.Refuse("socket_address.address", "%q is not an IP address", address.GetAddress())
	}
}
