package envoy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// Client is an Envoy that takes everything else from the mesh.
type Client struct {
	Role          translate.Role // Sidecar or Gateway
	Name, Service string         // Service is name.namespace; of sidecars
	Cluster       mesh.ClusterID
	Network       mesh.Network
	Locality      mesh.Locality
	Workload      translate.Workload
	// TrustDomain is the cluster's: its agent is known by it. ControlPlane is that of the controllers.
	TrustDomain, ControlPlane spiffeid.TrustDomain
	// Agent and Controllers are where xDS is served, in order of preference.
	Agent       Address
	Controllers []Address
	// Socket is the path of the Unix socket at which SPIRE's agent serves SDS.
	Socket string
	Admin  netip.AddrPort
	// Delta asks for incremental xDS, as opposed to state of the world.
	Delta bool
	// ReopenEvery is how long an xDS stream lasts: one that went to a controller returns to the agent so.
	ReopenEvery time.Duration
}

// Address is an IP address or DNS name, and a port.
type Address struct {
	Host string
	Port uint16
}

const (
	xdsCluster = "periplus_xds"
	// Envoy chooses a transport socket by this metadata of the endpoint.
	socketMatchFilter = "envoy.transport_socket_match"
	// Envoy refuses expressions whose compiled form is larger; its default, 100, is less than the name of a host.
	maxExpression    = 1 << 16
	keepaliveEvery   = 10 * time.Second
	xdsConnectLimit  = 3 * time.Second
	xdsFailures      = 2
	xdsEjection      = 5 * time.Second
	ejectionInterval = time.Second
	// Envoy would wait up to 30 s, longer than the first start waits for anything.
	xdsBackoff      = 200 * time.Millisecond
	xdsBackoffLimit = 2 * time.Second
)

// Bootstrap is the whole configuration file of an Envoy.
//
// The agent is the first priority of the cluster for xDS, the controllers are the second; as they are of different
// trust domains, each kind has a transport socket of its own that knows whom to expect. There are no active health
// checks, which would cost a handshake each: what refuses two connections is ejected for some seconds.
func (c *Client) Bootstrap() *bootstrapv3.Bootstrap {
	api := corev3.ApiConfigSource_GRPC
	if c.Delta {
		api = corev3.ApiConfigSource_DELTA_GRPC
	}
	source := func(api corev3.ApiConfigSource_ApiType) *corev3.ApiConfigSource {
		return &corev3.ApiConfigSource{
			ApiType: api, TransportApiVersion: corev3.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: xdsCluster}},
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(xdsBackoff), MaxInterval: durationpb.New(xdsBackoffLimit),
				}},
			}},
		}
	}
	return &bootstrapv3.Bootstrap{
		Node: c.Node(),
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: source(api), LdsConfig: fromADS(), CdsConfig: fromADS(),
		},
		ClusterManager:  &bootstrapv3.ClusterManager{LoadStatsConfig: source(corev3.ApiConfigSource_GRPC)},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{c.xdsCluster(), c.sdsCluster()}},
		Admin:           &bootstrapv3.Admin{Address: socketAddress(c.Admin.Addr().String(), c.Admin.Port())},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "periplus", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{
				Fields: map[string]*structpb.Value{
					"re2.max_program_size.error_level": structpb.NewNumberValue(maxExpression),
					"re2.max_program_size.warn_level":  structpb.NewNumberValue(maxExpression),
				},
			}},
		}}},
	}
}

// Node is what the client says of itself; the server lets it choose only within what its certificate allows.
func (c *Client) Node() *corev3.Node {
	metadata := new(structpb.Struct)
	data, err := json.Marshal(c.Workload)
	if err == nil {
		err = metadata.UnmarshalJSON(data)
	}
	if err != nil {
		panic("envoy: node metadata: " + err.Error()) // a plain struct
	}
	metadata.Fields["NETWORK"] = structpb.NewStringValue(string(c.Network))
	service := c.Service
	if c.Role == translate.Gateway {
		service = "eastwest"
	}
	return &corev3.Node{
		Id: string(c.Role) + "~" + string(c.Cluster) + "~" + c.Name, Cluster: service, Metadata: metadata,
		Locality: &corev3.Locality{Region: c.Locality.Region, Zone: c.Locality.Zone, SubZone: c.Locality.Subzone},
	}
}

func (c *Client) xdsCluster() *clusterv3.Cluster {
	out := &clusterv3.Cluster{
		Name: xdsCluster, ConnectTimeout: durationpb.New(xdsConnectLimit),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: xdsCluster, Endpoints: []*endpointv3.LocalityLbEndpoints{
			xdsServers(0, "agent", c.Agent),
		}},
		TransportSocketMatches: []*clusterv3.Cluster_TransportSocketMatch{
			xdsSocket("agent", exactly(mesh.AgentIdentity(c.TrustDomain).String())),
		},
		OutlierDetection: &clusterv3.OutlierDetection{
			SplitExternalLocalOriginErrors: true, ConsecutiveLocalOriginFailure: wrapperspb.UInt32(xdsFailures),
			EnforcingLocalOriginSuccessRate: wrapperspb.UInt32(0), EnforcingConsecutive_5Xx: wrapperspb.UInt32(0),
			Interval: durationpb.New(ejectionInterval), MaxEjectionPercent: wrapperspb.UInt32(100),
			BaseEjectionTime: durationpb.New(xdsEjection), MaxEjectionTime: durationpb.New(xdsEjection),
		},
		TypedExtensionProtocolOptions: http2Options(c.ReopenEvery),
	}
	if len(c.Controllers) > 0 {
		out.LoadAssignment.Endpoints = append(out.LoadAssignment.Endpoints, xdsServers(1, "controller", c.Controllers...))
		prefix := "spiffe://" + c.ControlPlane.Name() + "/" + string(mesh.RoleController) + "/"
		out.TransportSocketMatches = append(out.TransportSocketMatches, xdsSocket("controller",
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}}))
	}
	if slices.ContainsFunc(append([]Address{c.Agent}, c.Controllers...), Address.named) {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	}
	return out
}

// named tells whether the host is to be looked up.
func (a Address) named() bool {
	_, err := netip.ParseAddr(a.Host)
	return err != nil
}

func xdsServers(priority uint32, kind string, addresses ...Address) *endpointv3.LocalityLbEndpoints {
	out := &endpointv3.LocalityLbEndpoints{Priority: priority, Locality: &corev3.Locality{Zone: kind}}
	for _, a := range addresses {
		out.LbEndpoints = append(out.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(a.Host, a.Port)}},
			Metadata:       &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{socketMatchFilter: serverKind(kind)}},
		})
	}
	return out
}

func serverKind(kind string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"server": structpb.NewStringValue(kind)}}
}

func xdsSocket(kind string, identity *matcherv3.StringMatcher) *clusterv3.Cluster_TransportSocketMatch {
	common := commonTLS(nil)
	common.AlpnProtocols = []string{"h2"}
	common.GetCombinedValidationContext().DefaultValidationContext.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{
		{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: identity},
	}
	return &clusterv3.Cluster_TransportSocketMatch{
		Name: kind, Match: serverKind(kind), TransportSocket: tlsSocket(pack(&tlsv3.UpstreamTlsContext{CommonTlsContext: common})),
	}
}

func (c *Client) sdsCluster() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: sdsCluster, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: sdsCluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: c.Socket}}},
			}}}},
		}}},
		TypedExtensionProtocolOptions: http2Options(0),
	}
}

// http2Options is HTTP/2 with keepalive, for gRPC; streams last at most limit, if it is set.
func http2Options(limit time.Duration) map[string]*anypb.Any {
	return map[string]*anypb.Any{httpOptionsName: pack(&httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{MaxStreamDuration: positiveDuration(limit)},
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
						Interval: durationpb.New(keepaliveEvery), Timeout: durationpb.New(keepaliveEvery),
					}},
				},
			},
		},
	})}
}
