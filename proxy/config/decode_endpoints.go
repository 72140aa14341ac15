package config

import (
	"cmp"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// defaultOverprovisioning is Envoy's, in percent.
const defaultOverprovisioning = 140

// decodeEndpoints: hostnames are allowed only where the cluster resolves them.
func decodeEndpoints(p problems, pb *endpointv3.ClusterLoadAssignment, names bool) *Endpoints {
	policy := pb.GetPolicy()
	e := &Endpoints{
		Name:             pb.GetClusterName(),
		Overprovisioning: atLeastOne(policy.GetOverprovisioningFactor(), defaultOverprovisioning),
		WeightedPriority: policy.GetWeightedPriorityHealth(),
	}
	p.unsupported("policy.endpoint_stale_after", policy.GetEndpointStaleAfter().AsDuration() > 0)
	p.unsupported("named_endpoints", len(pb.GetNamedEndpoints()) > 0)
	drops := policy.GetDropOverloads()
	p.limit("policy.drop_overloads", len(drops), 1)
	for i, drop := range drops {
		e.DropPermillion = permillion(p.at("policy.drop_overloads", i), drop.GetDropPercentage().GetNumerator(), drop.GetDropPercentage().GetDenominator().String())
	}
	count := 0
	for i, pb := range pb.GetEndpoints() {
		if count += len(pb.GetLbEndpoints()); count > maxEndpoints {
			p.refuse("endpoints", "has more than %d endpoints", maxEndpoints)
			return e
		}
		e.Localities = append(e.Localities, decodeLocality(p.at("endpoints", i), pb, names))
	}
	slices.SortStableFunc(e.Localities, compareLocalities)
	e.checkPriorities(p)
	return e
}

func compareLocalities(a, b Locality) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Region, b.Region),
		cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Subzone, b.Subzone))
}

// checkPriorities: no gaps, and the weights of one priority sum below 2^32 (Envoy's rule).
func (e *Endpoints) checkPriorities(p problems) {
	next, sum := uint32(0), uint64(0)
	for i, l := range e.Localities {
		switch {
		case i > 0 && l.Priority == e.Localities[i-1].Priority:
		case l.Priority == next:
			next, sum = next+1, 0
		default:
			p.refuse("endpoints", "priority %d is used, but %d is not", l.Priority, next)
		}
		if sum += uint64(l.Weight); sum > 1<<32-1 {
			p.refuse("endpoints", "locality weights of priority %d sum above 2^32-1", l.Priority)
		}
	}
}

func decodeLocality(p problems, pb *endpointv3.LocalityLbEndpoints, names bool) Locality {
	p.unsupported("leds_cluster_locality_config", pb.GetLedsClusterLocalityConfig() != nil)
	p.unsupported("load_balancer_endpoints", pb.GetLbConfig() != nil)
	if pb.GetPriority() > 128 {
		p.refuse("priority", "%d is above 128", pb.GetPriority())
	}
	l := Locality{
		Region: pb.GetLocality().GetRegion(), Zone: pb.GetLocality().GetZone(), Subzone: pb.GetLocality().GetSubZone(),
		Priority: pb.GetPriority(), Weight: pb.GetLoadBalancingWeight().GetValue(),
		Endpoints: make([]Endpoint, 0, len(pb.GetLbEndpoints())),
	}
	sum := uint64(0)
	for i, pb := range pb.GetLbEndpoints() {
		endpoint := decodeEndpoint(p.at("lb_endpoints", i), pb, names)
		if sum += uint64(endpoint.Weight); sum > 1<<32-1 {
			p.refuse("lb_endpoints", "weights sum above 2^32-1")
		}
		l.Endpoints = append(l.Endpoints, endpoint)
	}
	return l
}

// health follows the order of Envoy's HealthStatus.
var healthStates = map[corev3.HealthStatus]Health{
	corev3.HealthStatus_UNKNOWN: HealthUnknown, corev3.HealthStatus_HEALTHY: Healthy,
	corev3.HealthStatus_UNHEALTHY: Unhealthy, corev3.HealthStatus_DRAINING: Draining,
	corev3.HealthStatus_TIMEOUT: TimedOut, corev3.HealthStatus_DEGRADED: Degraded,
}

func decodeEndpoint(p problems, pb *endpointv3.LbEndpoint, names bool) Endpoint {
	body := pb.GetEndpoint()
	if body == nil {
		p.refuse("endpoint", "is missing")
		return Endpoint{}
	}
	e := Endpoint{
		Hostname: body.GetHostname(), Weight: atLeastOne(pb.GetLoadBalancingWeight(), 1),
		Health:   healthStates[pb.GetHealthStatus()],
		NoChecks: body.GetHealthCheckConfig().GetDisableActiveHealthCheck(),
	}
	check := body.GetHealthCheckConfig()
	p.unsupported("endpoint.health_check_config", check.GetHostname() != "" || check.GetAddress() != nil)
	if port := check.GetPortValue(); port != 0 {
		e.HealthPort = p.port("endpoint.health_check_config.port_value", port)
	}
	e.address(p.in("endpoint.address"), body.GetAddress(), names)
	fields := pb.GetMetadata().GetFilterMetadata()[metadataKey].GetFields()
	e.Cluster, e.Network, e.Workload = text(fields["cluster"]), text(fields["network"]), text(fields["workload"])
	e.Gateway = fields["gateway"].GetBoolValue()
	return e
}

// metadataKey of filter metadata on endpoints and clusters.
const metadataKey = "periplus"

func text(v *structpb.Value) string { return v.GetStringValue() }

func (e *Endpoint) address(p problems, pb *corev3.Address, names bool) {
	address := pb.GetSocketAddress()
	if address == nil {
		p.refuse("socket_address", "is missing; other kinds are not supported")
		return
	}
	e.Port = p.port("socket_address.port_value", address.GetPortValue())
	ip, err := netip.ParseAddr(address.GetAddress())
	switch {
	case err == nil && (ip.IsUnspecified() || ip.IsMulticast()):
		p.refuse("socket_address.address", "%q cannot be an endpoint", address.GetAddress())
	case err == nil:
		e.Address = netip.AddrPortFrom(ip.Unmap(), e.Port)
	case names && address.GetAddress() != "":
		e.Host = address.GetAddress()
	default:
		p.refuse("socket_address.address", "%q is not an IP address", address.GetAddress())
	}
}

// permillion scales Envoy's FractionalPercent.
func permillion(p problems, numerator uint32, denominator string) uint32 {
	scale := map[string]uint64{"HUNDRED": 10_000, "TEN_THOUSAND": 100, "MILLION": 1}[denominator]
	if scale == 0 {
		p.refuse("denominator", "is not known")
	}
	return uint32(min(uint64(numerator)*scale, 1_000_000))
}
