package config

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbuffer "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

const httpOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// decodeCluster returns the settings, and the endpoints if they are inline.
func decodeCluster(p problems, pb *clusterv3.Cluster) (*Settings, *Endpoints) {
	s := &Settings{
		Name:           pb.GetName(),
		Service:        text(pb.GetMetadata().GetFilterMetadata()[metadataKey].GetFields()["service"]),
		ConnectTimeout: p.positive("connect_timeout", pb.GetConnectTimeout(), 5*time.Second),
		KeepaliveIdle:  time.Duration(pb.GetUpstreamConnectionOptions().GetTcpKeepalive().GetKeepaliveTime().GetValue()) * time.Second,
		Balance:        decodeBalance(p, pb),
		Breakers:       decodeBreakers(p.in("circuit_breakers"), pb.GetCircuitBreakers()),
		TLS:            decodeUpstreamSocket(p.in("transport_socket"), pb.GetTransportSocket()),
	}
	refuseClusterFields(p, pb)
	if pb.GetOutlierDetection() != nil {
		s.Outlier = decodeOutlier(p.in("outlier_detection"), pb.GetOutlierDetection())
	}
	p.limit("health_checks", len(pb.GetHealthChecks()), 1) // as in Envoy: two could disagree
	for i, check := range pb.GetHealthChecks() {
		s.HealthChecks = append(s.HealthChecks, decodeHealthCheck(p.at("health_checks", i), check))
	}
	s.decodeProtocol(p, pb)
	return s, s.decodeDiscovery(p, pb)
}

func refuseClusterFields(p problems, pb *clusterv3.Cluster) {
	p.unsupported("cluster_type", pb.GetClusterType() != nil)
	p.unsupported("load_balancing_policy", pb.GetLoadBalancingPolicy() != nil)
	p.unsupported("lb_subset_config", pb.GetLbSubsetConfig() != nil)
	p.unsupported("transport_socket_matches", len(pb.GetTransportSocketMatches()) > 0)
	p.unsupported("filters", len(pb.GetFilters()) > 0)
	p.unsupported("close_connections_on_host_health_failure", pb.GetCloseConnectionsOnHostHealthFailure())
	p.unsupported("max_requests_per_connection", pb.GetMaxRequestsPerConnection() != nil) // common_http_protocol_options has it
	p.unsupported("upstream_bind_config", pb.GetUpstreamBindConfig() != nil)
	p.unsupported("lrs_report_endpoint_metrics", len(pb.GetLrsReportEndpointMetrics()) > 0)
}

func (s *Settings) decodeDiscovery(p problems, pb *clusterv3.Cluster) *Endpoints {
	switch pb.GetType() {
	case clusterv3.Cluster_EDS:
		s.Discovery, s.EDSName = EDS, pb.GetEdsClusterConfig().GetServiceName()
		if s.EDSName == "" {
			s.EDSName = s.Name
		}
		p.unsupported("load_assignment", pb.GetLoadAssignment() != nil)
		return nil
	case clusterv3.Cluster_STATIC:
		s.Discovery = Static
	case clusterv3.Cluster_STRICT_DNS:
		s.Discovery = StrictDNS
	default:
		p.refuse("type", "%v is not supported; use EDS, STATIC or STRICT_DNS", pb.GetType())
		return nil
	}
	return decodeEndpoints(p.in("load_assignment"), pb.GetLoadAssignment(), s.Discovery == StrictDNS)
}

// decodeProtocol reads the typed options, else the deprecated fields.
func (s *Settings) decodeProtocol(p problems, pb *clusterv3.Cluster) {
	s.IdleTimeout = time.Hour
	s.HTTP2 = decodeHTTP2(p, pb.GetHttp2ProtocolOptions())
	if pb.GetHttp2ProtocolOptions() != nil {
		s.Protocol = UpstreamHTTP2
	}
	s.common(p.in("common_http_protocol_options"), pb.GetCommonHttpProtocolOptions())
	for key, packed := range pb.GetTypedExtensionProtocolOptions() {
		options := new(httpv3.HttpProtocolOptions)
		if key != httpOptionsKey {
			p.refuse("typed_extension_protocol_options", "%q is not supported", key)
		} else if p := p.in("typed_extension_protocol_options"); p.unpack(key, packed, options) {
			s.httpOptions(p, options)
		}
	}
}

func (s *Settings) httpOptions(p problems, pb *httpv3.HttpProtocolOptions) {
	s.common(p.in("common_http_protocol_options"), pb.GetCommonHttpProtocolOptions())
	p.unsupported("http_filters", len(pb.GetHttpFilters()) > 0)
	var http2 *corev3.Http2ProtocolOptions
	switch {
	case pb.GetUseDownstreamProtocolConfig() != nil:
		s.Protocol, http2 = UseDownstream, pb.GetUseDownstreamProtocolConfig().GetHttp2ProtocolOptions()
	case pb.GetAutoConfig() != nil:
		s.Protocol, http2 = UseALPN, pb.GetAutoConfig().GetHttp2ProtocolOptions()
	case pb.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil:
		s.Protocol, http2 = UpstreamHTTP2, pb.GetExplicitHttpConfig().GetHttp2ProtocolOptions()
	case pb.GetExplicitHttpConfig().GetHttp3ProtocolOptions() != nil:
		p.refuse("explicit_http_config.http3_protocol_options", "is not supported")
	default:
		s.Protocol = UpstreamHTTP1
	}
	s.HTTP2 = decodeHTTP2(p, http2)
}

func (s *Settings) common(p problems, pb *corev3.HttpProtocolOptions) {
	if pb == nil {
		return
	}
	s.IdleTimeout = p.duration("idle_timeout", pb.GetIdleTimeout(), time.Hour)
	s.MaxConnectionDuration = p.duration("max_connection_duration", pb.GetMaxConnectionDuration(), 0)
	s.MaxRequestsPerConnection = pb.GetMaxRequestsPerConnection().GetValue()
}

func decodeHTTP2(p problems, pb *corev3.Http2ProtocolOptions) HTTP2Options {
	keepalive := pb.GetConnectionKeepalive()
	return HTTP2Options{
		MaxConcurrentStreams: atLeastOne(pb.GetMaxConcurrentStreams(), 100),
		StreamWindow:         atLeastOne(pb.GetInitialStreamWindowSize(), 64<<10-1),
		ConnectionWindow:     atLeastOne(pb.GetInitialConnectionWindowSize(), 1<<20),
		PingInterval:         p.duration("http2_protocol_options.connection_keepalive.interval", keepalive.GetInterval(), 0),
		PingLimit:            p.duration("http2_protocol_options.connection_keepalive.timeout", keepalive.GetTimeout(), 0),
	}
}

func decodeUpstreamSocket(p problems, pb *corev3.TransportSocket) *UpstreamTLS {
	context := new(tlsv3.UpstreamTlsContext)
	if plainText(p, pb) || !p.unpack("typed_config", pb.GetTypedConfig(), context) {
		return nil
	}
	p.unsupported("auto_host_sni", context.GetAutoHostSni())
	p.unsupported("auto_sni_san_validation", context.GetAutoSniSanValidation())
	tls := &UpstreamTLS{SNI: context.GetSni()}
	if len(tls.SNI) > 255 {
		p.refuse("sni", "is longer than 255 bytes")
	}
	p = p.in("common_tls_context")
	tls.ALPN, tls.SANs = decodeTLS(p, context.GetCommonTlsContext())
	return tls
}

// plainText: no socket, or a raw one.
func plainText(p problems, pb *corev3.TransportSocket) bool {
	if pb == nil {
		return true
	}
	return typeOf(pb.GetTypedConfig()) == "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" &&
		p.unpack("typed_config", pb.GetTypedConfig(), new(rawbuffer.RawBuffer))
}

// decodeTLS reads what both directions share. SDS sources are accepted and ignored: keys come from the Workload API.
func decodeTLS(p problems, pb *tlsv3.CommonTlsContext) (alpn, sans []string) {
	p.unsupported("tls_certificates", len(pb.GetTlsCertificates()) > 0) // private keys never travel over xDS
	p.unsupported("custom_handshaker", pb.GetCustomHandshaker() != nil)
	p.limit("alpn_protocols", len(pb.GetAlpnProtocols()), 16)
	validation, p2 := pb.GetValidationContext(), p.in("validation_context")
	if combined := pb.GetCombinedValidationContext(); combined != nil {
		validation, p2 = combined.GetDefaultValidationContext(), p.in("combined_validation_context.default_validation_context")
	}
	p2.unsupported("trusted_ca", validation.GetTrustedCa() != nil)
	p2.unsupported("custom_validator_config", validation.GetCustomValidatorConfig() != nil)
	p2.unsupported("verify_certificate_hash", len(validation.GetVerifyCertificateHash())+len(validation.GetVerifyCertificateSpki()) > 0)
	return slices.Clone(pb.GetAlpnProtocols()), decodeSANs(p2, validation)
}

func decodeSANs(p problems, pb *tlsv3.CertificateValidationContext) []string {
	p.limit("match_typed_subject_alt_names", len(pb.GetMatchTypedSubjectAltNames()), maxSANs)
	p.unsupported("match_subject_alt_names", len(pb.GetMatchSubjectAltNames()) > 0)
	var sans []string
	for i, san := range pb.GetMatchTypedSubjectAltNames() {
		exact := san.GetMatcher().GetExact()
		if san.GetSanType() != tlsv3.SubjectAltNameMatcher_URI || exact == "" {
			p.at("match_typed_subject_alt_names", i).refuse("matcher", "must be an exact URI")
			return nil
		}
		sans = append(sans, exact)
	}
	slices.Sort(sans)
	return slices.Compact(sans)
}
