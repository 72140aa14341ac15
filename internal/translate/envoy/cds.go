package envoy

import (
	"math"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// Defaults of a cluster: Istio's, and Envoy's where Istio has none.
const (
	defaultConnectTimeout = 10 * time.Second
	defaultIdleTimeout    = time.Hour
	defaultRingSize       = 1024
)

const httpOptionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Cluster is the Envoy cluster for r, which exists.
func Cluster(s *mesh.Snapshot, v translate.View, r translate.Request) *clusterv3.Cluster {
	port, _ := v.Port(s, r)
	traffic := v.Traffic(s, r)
	if v.Role == translate.Gateway {
		port.Protocol, traffic = mesh.TCP, gatewayTraffic(traffic)
	}
	pool := connectionPool(traffic)
	c := &clusterv3.Cluster{
		Name:                 v.RequestName(r),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: fromADS()},
		ConnectTimeout:       durationpb.New(pool.ConnectTimeout),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{Value: float64(translate.PanicPercent(traffic))},
			LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
			},
		},
		CircuitBreakers:  circuitBreakers(pool),
		OutlierDetection: outlierDetection(traffic.OutlierDetection),
	}
	setAlgorithm(c, traffic.LoadBalancer)
	setProtocol(c, port.Protocol, pool)
	if v.Role != translate.Gateway && v.Authenticated(s, r.Service) {
		c.TransportSocket = upstreamTLS(r.ServerName(), alpn(port.Protocol)[0], v.Identities(s, r))
	}
	return c
}

// gatewayTraffic is what of a policy makes sense where connections are passed through unread: the client's own
// sidecar balances, ejects and limits; the gateway only spreads.
func gatewayTraffic(t mesh.TrafficPolicy) mesh.TrafficPolicy {
	if t.ConnectionPool == nil {
		return mesh.TrafficPolicy{}
	}
	return mesh.TrafficPolicy{ConnectionPool: &mesh.ConnectionPool{ConnectTimeout: t.ConnectionPool.ConnectTimeout}}
}

func connectionPool(t mesh.TrafficPolicy) mesh.ConnectionPool {
	var pool mesh.ConnectionPool
	if t.ConnectionPool != nil {
		pool = *t.ConnectionPool
	}
	if pool.ConnectTimeout == 0 {
		pool.ConnectTimeout = defaultConnectTimeout
	}
	if pool.IdleTimeout == 0 {
		pool.IdleTimeout = defaultIdleTimeout
	}
	return pool
}

func setAlgorithm(c *clusterv3.Cluster, b *mesh.LoadBalancer) {
	if b == nil {
		b = &mesh.LoadBalancer{}
	}
	switch b.Algorithm {
	case mesh.RoundRobin:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case mesh.Random:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case mesh.Maglev:
		c.LbPolicy = clusterv3.Cluster_MAGLEV
	case mesh.RingHash:
		size := b.MinimumRingSize
		if size == 0 {
			size = defaultRingSize
		}
		c.LbPolicy = clusterv3.Cluster_RING_HASH
		c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(size),
		}}
	default:
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	}
}

// Retries have a budget instead of Envoy's fixed 3, unless a number is set, so that they follow the load and cannot
// multiply it. All requests in flight on an endpoint that dies are tried again at once: the minimum is what one client
// may have in flight there without any of them failing.
const (
	retryBudgetPercent  = 20
	minRetryConcurrency = 100
)

// circuitBreakers has the limits that are set; what is not set is not limited, as DestinationRule says (Envoy's
// defaults are 1024).
func circuitBreakers(pool mesh.ConnectionPool) *clusterv3.CircuitBreakers {
	limits := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     limit(pool.MaxConnections),
		MaxPendingRequests: limit(pool.MaxPendingRequests),
		MaxRequests:        limit(pool.MaxRequests),
		MaxRetries:         positive(pool.MaxRetries),
	}
	if pool.MaxRetries == 0 {
		limits.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: retryBudgetPercent},
			MinRetryConcurrency: wrapperspb.UInt32(minRetryConcurrency),
		}
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{limits}}
}

// limit is no limit for 0.
func limit(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		n = math.MaxUint32
	}
	return wrapperspb.UInt32(n)
}

// positive is nil for 0: Envoy's default.
func positive(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt32(n)
}

func positiveDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func outlierDetection(o *mesh.OutlierDetection) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &clusterv3.OutlierDetection{
		Consecutive_5Xx:    positive(o.Consecutive5xx),
		Interval:           positiveDuration(o.Interval),
		BaseEjectionTime:   positiveDuration(o.BaseEjectionTime),
		MaxEjectionPercent: positive(o.MaxEjectionPercent),
		// Istio has no success rate ejection.
		EnforcingSuccessRate: wrapperspb.UInt32(0),
	}
	if o.ConsecutiveGatewayErrors > 0 {
		out.ConsecutiveGatewayFailure = wrapperspb.UInt32(o.ConsecutiveGatewayErrors)
		out.EnforcingConsecutiveGatewayFailure = wrapperspb.UInt32(100)
	}
	return out
}

// setProtocol says which HTTP goes upstream; TCP clusters have no HTTP options.
func setProtocol(c *clusterv3.Cluster, p mesh.Protocol, pool mesh.ConnectionPool) {
	if p == mesh.TCP {
		return
	}
	config := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	}
	if p == mesh.HTTP2 || p == mesh.GRPC {
		config.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
		}
	}
	options := &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:              durationpb.New(pool.IdleTimeout),
			MaxRequestsPerConnection: positive(pool.MaxRequestsPerConnection),
		},
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: config},
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptionsName: pack(options)}
}

// InboundCluster leads to the application behind one port of a sidecar.
func InboundCluster(in translate.Inbound) *clusterv3.Cluster {
	host, port := in.Address()
	name := InboundName(in.EndpointPort)
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(defaultConnectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(host, port)}},
			}}}},
		},
	}
	setProtocol(c, in.Protocol, connectionPool(mesh.TrafficPolicy{}))
	return c
}

func socketAddress(host string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// pack puts a message into an Any, deterministically.
func pack(m proto.Message) *anypb.Any {
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic("translate: marshal " + string(m.ProtoReflect().Descriptor().FullName()) + ": " + err.Error())
	}
	return out
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }
