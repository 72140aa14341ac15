package config

import (
	"strings"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

var codecs = map[hcmv3.HttpConnectionManager_CodecType]Codec{
	hcmv3.HttpConnectionManager_AUTO: AutoCodec, hcmv3.HttpConnectionManager_HTTP1: HTTP1, hcmv3.HttpConnectionManager_HTTP2: HTTP2,
}

var forwardClientCerts = map[hcmv3.HttpConnectionManager_ForwardClientCertDetails]ForwardClientCert{
	hcmv3.HttpConnectionManager_SANITIZE: SanitizeXFCC, hcmv3.HttpConnectionManager_FORWARD_ONLY: ForwardOnlyXFCC,
	hcmv3.HttpConnectionManager_APPEND_FORWARD: AppendForwardXFCC, hcmv3.HttpConnectionManager_SANITIZE_SET: SanitizeSetXFCC,
	hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY: AlwaysForwardOnlyXFCC,
}

// decodeHTTP ignores what only observes (access logs, tracing): the proxy has its own. Paths are always normalised, and
// drains have the proxy's time.
func decodeHTTP(p problems, packed *anypb.Any) *HTTP {
	pb := new(hcmv3.HttpConnectionManager)
	if !p.unpack("http_connection_manager", packed, pb) {
		return nil
	}
	codec, known := codecs[pb.GetCodecType()]
	if !known {
		p.refuse("codec_type", "%v is not supported", pb.GetCodecType())
	}
	refuseHTTPFields(p, pb)
	h := &HTTP{
		Codec: codec, ServerName: pb.GetServerName(),
		MaxHeaderKiB:         min(atLeastOne(pb.GetMaxRequestHeadersKb(), 60), 8192),
		MaxConcurrentStreams: atLeastOne(pb.GetHttp2ProtocolOptions().GetMaxConcurrentStreams(), 100),
		ForwardClientCert:    forwardClientCerts[pb.GetForwardClientCertDetails()],
	}
	h.timeouts(p, pb)
	h.routes(p, pb)
	h.filters(p, pb.GetHttpFilters())
	for _, upgrade := range pb.GetUpgradeConfigs() {
		switch strings.ToLower(upgrade.GetUpgradeType()) {
		case "websocket": // is always possible
		case "connect":
			h.Connect = boolean(upgrade.GetEnabled(), true)
		default:
			p.refuse("upgrade_configs", "%q is not supported", upgrade.GetUpgradeType())
		}
	}
	return h
}

func refuseHTTPFields(p problems, pb *hcmv3.HttpConnectionManager) {
	// Who asks is known by certificate; nobody's word is taken for an address.
	p.unsupported("use_remote_address", pb.GetUseRemoteAddress().GetValue())
	p.unsupported("xff_num_trusted_hops", pb.GetXffNumTrustedHops() > 0)
	p.unsupported("strip_port_mode", pb.GetStripAnyHostPort() || pb.GetStripMatchingHostPort())
	p.unsupported("strip_trailing_host_dot", pb.GetStripTrailingHostDot())
	p.unsupported("scoped_routes", pb.GetScopedRoutes() != nil)
	p.unsupported("local_reply_config", pb.GetLocalReplyConfig() != nil)
	p.unsupported("original_ip_detection_extensions", len(pb.GetOriginalIpDetectionExtensions()) > 0)
	p.unsupported("early_header_mutation_extensions", len(pb.GetEarlyHeaderMutationExtensions()) > 0)
	p.unsupported("request_id_extension", pb.GetRequestIdExtension() != nil)
	p.unsupported("typed_header_validation_config", pb.GetTypedHeaderValidationConfig() != nil)
	p.unsupported("path_normalization_options", pb.GetPathNormalizationOptions() != nil)
}

func (h *HTTP) timeouts(p problems, pb *hcmv3.HttpConnectionManager) {
	common := pb.GetCommonHttpProtocolOptions()
	h.IdleTimeout = p.duration("common_http_protocol_options.idle_timeout", common.GetIdleTimeout(), time.Hour)
	h.HeadersTimeout = p.duration("request_headers_timeout", pb.GetRequestHeadersTimeout(), 0)
	h.StreamIdleTimeout = p.duration("stream_idle_timeout", pb.GetStreamIdleTimeout(), 5*time.Minute)
	h.RequestTimeout = p.duration("request_timeout", pb.GetRequestTimeout(), 0)
}

func (h *HTTP) routes(p problems, pb *hcmv3.HttpConnectionManager) {
	switch {
	case pb.GetRouteConfig() != nil:
		h.Routes = decodeRouteTable(p.in("route_config"), pb.GetRouteConfig())
	case pb.GetRds().GetRouteConfigName() != "":
		h.RouteName = pb.GetRds().GetRouteConfigName()
	default:
		p.refuse("route_specifier", "must be rds with a name, or route_config")
	}
}

func (h *HTTP) filters(p problems, filters []*hcmv3.HttpFilter) {
	p.limit("http_filters", len(filters), maxFilters)
	for i, filter := range filters {
		p := p.at("http_filters", i).in("typed_config")
		switch kind := typeOf(filter.GetTypedConfig()); {
		case filter.GetDisabled():
		case i == len(filters)-1 && kind != routerFilter:
			p.refuse("type_url", "the last filter must be the router, not %q", kind)
		case kind == routerFilter:
			p.unpack("router", filter.GetTypedConfig(), new(routerv3.Router))
		case kind == "envoy.extensions.filters.http.rbac.v3.RBAC":
			h.addRBAC(p, filter.GetTypedConfig())
		case !filter.GetIsOptional():
			p.refuse("type_url", "%q is not supported", kind)
		}
	}
	if len(filters) == 0 {
		p.refuse("http_filters", "is empty: the router is missing")
	}
}

const routerFilter = "envoy.extensions.filters.http.router.v3.Router"

func (h *HTTP) addRBAC(p problems, packed *anypb.Any) {
	filter := new(rbacv3.RBAC)
	if p.unpack("rbac", packed, filter) {
		p.unsupported("matcher", filter.GetMatcher() != nil || filter.GetShadowMatcher() != nil)
		h.RBAC = append(h.RBAC, decodeRBAC(p, filter.GetRules(), filter.GetShadowRules())...)
	}
}
