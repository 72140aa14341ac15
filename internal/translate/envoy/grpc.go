package envoy

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// What a gRPC library without a proxy is told has its own shape (gRFC A27, A28, A29): a listener and a route
// configuration named as the target that the application dialled, clusters and endpoints as sidecars have them.

// certificateProvider is the instance of certificate_providers in the client's bootstrap that has its SVID and the
// bundles (gRFC A29).
const certificateProvider = "default"

// GRPCTargets are the names under which a gRPC client may dial a service, "xds:///" cut off: each of its names alone,
// which means the default port, and with each port.
func GRPCTargets(s *mesh.Snapshot, v translate.View, name mesh.ServiceName) []string {
	ports := grpcPorts(s, v, name)
	if len(ports) == 0 {
		return nil
	}
	var targets []string
	for _, host := range hosts(v, name) {
		targets = append(targets, host)
		for _, port := range ports {
			targets = append(targets, host+":"+portText(port.Port))
		}
	}
	return targets
}

// ParseGRPCTarget is what a target asks for; false if there is no such service or port for v.
func ParseGRPCTarget(s *mesh.Snapshot, v translate.View, target string) (translate.Request, bool) {
	host, portString, explicit := strings.Cut(target, ":")
	if !strings.Contains(host, ".") {
		host += "." + v.Namespace
	}
	name, err := mesh.ParseServiceName(host)
	if err != nil {
		return translate.Request{}, false
	}
	ports := grpcPorts(s, v, name)
	at := slices.IndexFunc(ports, func(p mesh.ServicePort) bool { return portText(p.Port) == portString })
	if !explicit && len(ports) > 0 {
		at = defaultPort(ports)
	}
	if at < 0 {
		return translate.Request{}, false
	}
	return translate.Request{Service: name, Port: ports[at].Port}, true
}

func grpcPorts(s *mesh.Snapshot, v translate.View, name mesh.ServiceName) []mesh.ServicePort {
	return slices.DeleteFunc(v.Ports(s, name), func(p mesh.ServicePort) bool { return !translate.ServesGRPC(p) })
}

// GRPCListener is what a gRPC client asks for first: it leads to the routes of the same name (gRFC A27).
func GRPCListener(target string) *listenerv3.Listener {
	manager := httpManager(target)
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: target, ConfigSource: fromADS(),
	}}
	return &listenerv3.Listener{Name: target, ApiListener: &listenerv3.ApiListener{ApiListener: pack(manager)}}
}

// GRPCCluster is the cluster for r, which exists, without what gRPC would reject (TLS parameters, SDS) and what it
// would not look at.
func GRPCCluster(s *mesh.Snapshot, v translate.View, r translate.Request) *clusterv3.Cluster {
	traffic := v.Traffic(s, r)
	c := &clusterv3.Cluster{
		Name:                 v.RequestName(r),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: fromADS()},
	}
	setGRPCAlgorithm(c, traffic.LoadBalancer)
	if pool := traffic.ConnectionPool; pool != nil && pool.MaxRequests > 0 {
		c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{
			{MaxRequests: wrapperspb.UInt32(pool.MaxRequests)},
		}}
	}
	if v.Authenticated(s, r.Service) {
		c.TransportSocket = grpcTLS(r.ServerName(), v.Identities(s, r))
	}
	return c
}

// setGRPCAlgorithm chooses among what gRPC has (gRFC A27, A42, A48, A52). Only a policy below WrrLocality follows the
// weights of localities: cluster.lb_policy LEAST_REQUEST would not. A library without the first takes the second.
func setGRPCAlgorithm(c *clusterv3.Cluster, b *mesh.LoadBalancer) {
	c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	if b == nil {
		b = &mesh.LoadBalancer{}
	}
	switch b.Algorithm {
	case mesh.RingHash, mesh.Maglev:
		setAlgorithm(c, &mesh.LoadBalancer{Algorithm: mesh.RingHash, MinimumRingSize: b.MinimumRingSize})
	case mesh.LeastRequest, "":
		c.LoadBalancingPolicy = lbPolicies(&wrrlocalityv3.WrrLocality{
			EndpointPickingPolicy: lbPolicies(&leastrequestv3.LeastRequest{}, &roundrobinv3.RoundRobin{}),
		})
	}
}

func lbPolicies(all ...proto.Message) *clusterv3.LoadBalancingPolicy {
	out := new(clusterv3.LoadBalancingPolicy)
	for _, m := range all {
		out.Policies = append(out.Policies, &clusterv3.LoadBalancingPolicy_Policy{TypedExtensionConfig: &corev3.TypedExtensionConfig{
			Name: string(m.ProtoReflect().Descriptor().FullName()), TypedConfig: pack(m),
		}})
	}
	return out
}

// grpcTLS names the certificate provider for everything. The match of any kind of name by text is safe: whose a name
// is says the URI scheme, and no host or address has one.
func grpcTLS(serverName string, identities []string) *corev3.TransportSocket {
	provider := &tlsv3.CertificateProviderPluginInstance{InstanceName: certificateProvider}
	validation := &tlsv3.CertificateValidationContext{CaCertificateProviderInstance: provider}
	for _, id := range identities {
		//nolint:staticcheck // gRPC reads the typed form in no version
		validation.MatchSubjectAltNames = append(validation.MatchSubjectAltNames, exactly(id))
	}
	return tlsSocket(pack(&tlsv3.UpstreamTlsContext{Sni: serverName, CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateProviderInstance: provider,
		ValidationContextType:          &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}}))
}

// GRPCLoadAssignment is the assignment as gRPC accepts it: each address once, which assignments have already; no
// gateways for a client that cannot pass them, and yet priorities without gaps.
func GRPCLoadAssignment(s *mesh.Snapshot, v translate.View, r translate.Request) []byte {
	levels := translate.Assign(s, v, r).Levels
	if v.Role != translate.GRPC {
		for i := range levels {
			levels[i] = slices.DeleteFunc(levels[i], func(p translate.Placed) bool { return p.Gateway })
		}
		levels = slices.DeleteFunc(levels, func(level []translate.Placed) bool { return len(level) == 0 })
	}
	return loadAssignment(v.RequestName(r), levels)
}
