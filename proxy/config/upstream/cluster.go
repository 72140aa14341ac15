package upstream

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

const httpOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Cluster decodes a cluster: its settings, and its endpoints if they are inline; what p refuses makes both void.
func Cluster(p field.Problems, pb *clusterv3.Cluster) (*config.Settings, *config.Endpoints) {
	s := &config.Settings{
		Name:           pb.GetName(),
		Service:        field.Text(pb.GetMetadata().GetFilterMetadata()[metadataKey].GetFields()["service"]),
		ConnectTimeout: p.Positive("connect_timeout", pb.GetConnectTimeout(), 5*time.Second),
		KeepaliveIdle:  time.Duration(pb.GetUpstreamConnectionOptions().GetTcpKeepalive().GetKeepaliveTime().GetValue()) * time.Second,
		Balance:        decodeBalance(p, pb),
		Breakers:       decodeBreakers(p.In("circuit_breakers"), pb.GetCircuitBreakers()),
		TLS:            decodeUpstreamSocket(p.In("transport_socket"), pb.GetTransportSocket()),
	}
	refuseClusterFields(p, pb)
	if pb.GetOutlierDetection() != nil {
		s.Outlier = decodeOutlier(p.In("outlier_detection"), pb.GetOutlierDetection())
	}
	p.Limit("health_checks", len(pb.GetHealthChecks()), 1) // as in Envoy: two could disagree
	for i, check := range pb.GetHealthChecks() {
		s.HealthChecks = append(s.HealthChecks, decodeHealthCheck(p.At("health_checks", i), check))
	}
	decodeProtocol(s, p, pb)
	return s, decodeDiscovery(s, p, pb)
}

func refuseClusterFields(p field.Problems, pb *clusterv3.Cluster) {
	p.Unsupported("cluster_type", pb.GetClusterType() != nil)
	p.Unsupported("load_balancing_policy", pb.GetLoadBalancingPolicy() != nil)
	p.Unsupported("lb_subset_config", pb.GetLbSubsetConfig() != nil)
	p.Unsupported("transport_socket_matches", len(pb.GetTransportSocketMatches()) > 0)
	p.Unsupported("filters", len(pb.GetFilters()) > 0)
	p.Unsupported("close_connections_on_host_health_failure", pb.GetCloseConnectionsOnHostHealthFailure())
	p.Unsupported("max_requests_per_connection", pb.GetMaxRequestsPerConnection() != nil) // common_http_protocol_options has it
	p.Unsupported("upstream_bind_config", pb.GetUpstreamBindConfig() != nil)
	p.Unsupported("lrs_report_endpoint_metrics", len(pb.GetLrsReportEndpointMetrics()) > 0)
}

func decodeDiscovery(s *config.Settings, p field.Problems, pb *clusterv3.Cluster) *config.Endpoints {
	switch pb.GetType() {
	case clusterv3.Cluster_EDS:
		s.Discovery, s.EDSName = config.EDS, pb.GetEdsClusterConfig().GetServiceName()
		if s.EDSName == "" {
			s.EDSName = s.Name
		}
		p.Unsupported("load_assignment", pb.GetLoadAssignment() != nil)
		return nil
	case clusterv3.Cluster_STATIC:
		s.Discovery = config.Static
	case clusterv3.Cluster_STRICT_DNS:
		s.Discovery = config.StrictDNS
	default:
		p.Refuse("type", "%v is not supported; use EDS, STATIC or STRICT_DNS", pb.GetType())
		return nil
	}
	return Endpoints(p.In("load_assignment"), pb.GetLoadAssignment(), s.Discovery == config.StrictDNS)
}

// decodeProtocol reads the typed options, else the deprecated fields.
func decodeProtocol(s *config.Settings, p field.Problems, pb *clusterv3.Cluster) {
	s.IdleTimeout = time.Hour
	s.HTTP2 = decodeHTTP2(p, pb.GetHttp2ProtocolOptions())
	if pb.GetHttp2ProtocolOptions() != nil {
		s.Protocol = config.UpstreamHTTP2
	}
	decodeCommon(s, p.In("common_http_protocol_options"), pb.GetCommonHttpProtocolOptions())
	for key, packed := range pb.GetTypedExtensionProtocolOptions() {
		options := new(httpv3.HttpProtocolOptions)
		if key != httpOptionsKey {
			p.Refuse("typed_extension_protocol_options", "%q is not supported", key)
		} else if p := p.In("typed_extension_protocol_options"); p.Unpack(key, packed, options) {
			decodeHTTPOptions(s, p, options)
		}
	}
}

func decodeHTTPOptions(s *config.Settings, p field.Problems, pb *httpv3.HttpProtocolOptions) {
	decodeCommon(s, p.In("common_http_protocol_options"), pb.GetCommonHttpProtocolOptions())
	p.Unsupported("http_filters", len(pb.GetHttpFilters()) > 0)
	var http2 *corev3.Http2ProtocolOptions
	switch {
	case pb.GetUseDownstreamProtocolConfig() != nil:
		s.Protocol, http2 = config.UseDownstream, pb.GetUseDownstreamProtocolConfig().GetHttp2ProtocolOptions()
	case pb.GetAutoConfig() != nil:
		s.Protocol, http2 = config.UseALPN, pb.GetAutoConfig().GetHttp2ProtocolOptions()
	case pb.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil:
		s.Protocol, http2 = config.UpstreamHTTP2, pb.GetExplicitHttpConfig().GetHttp2ProtocolOptions()
	case pb.GetExplicitHttpConfig().GetHttp3ProtocolOptions() != nil:
		p.Refuse("explicit_http_config.http3_protocol_options", "is not supported")
	default:
		s.Protocol = config.UpstreamHTTP1
	}
	s.HTTP2 = decodeHTTP2(p, http2)
}

func decodeCommon(s *config.Settings, p field.Problems, pb *corev3.HttpProtocolOptions) {
	if pb == nil {
		return
	}
	s.IdleTimeout = p.Duration("idle_timeout", pb.GetIdleTimeout(), time.Hour)
	s.MaxConnectionDuration = p.Duration("max_connection_duration", pb.GetMaxConnectionDuration(), 0)
	s.MaxRequestsPerConnection = pb.GetMaxRequestsPerConnection().GetValue()
}

func decodeHTTP2(p field.Problems, pb *corev3.Http2ProtocolOptions) config.HTTP2Options {
	keepalive := pb.GetConnectionKeepalive()
	return config.HTTP2Options{
		MaxConcurrentStreams: field.AtLeastOne(pb.GetMaxConcurrentStreams(), 100),
		StreamWindow:         field.AtLeastOne(pb.GetInitialStreamWindowSize(), 64<<10-1),
		ConnectionWindow:     field.AtLeastOne(pb.GetInitialConnectionWindowSize(), 1<<20),
		PingInterval:         p.Duration("http2_protocol_options.connection_keepalive.interval", keepalive.GetInterval(), 0),
		PingLimit:            p.Duration("http2_protocol_options.connection_keepalive.timeout", keepalive.GetTimeout(), 0),
	}
}

func decodeUpstreamSocket(p field.Problems, pb *corev3.TransportSocket) *config.UpstreamTLS {
	context := new(tlsv3.UpstreamTlsContext)
	if field.PlainText(p, pb) || !p.Unpack("typed_config", pb.GetTypedConfig(), context) {
		return nil
	}
	p.Unsupported("auto_host_sni", context.GetAutoHostSni())
	p.Unsupported("auto_sni_san_validation", context.GetAutoSniSanValidation())
	tls := &config.UpstreamTLS{SNI: context.GetSni()}
	if len(tls.SNI) > 255 {
		p.Refuse("sni", "is longer than 255 bytes")
	}
	p = p.In("common_tls_context")
	tls.ALPN, tls.SANs = field.TLS(p, context.GetCommonTlsContext())
	return tls
}
