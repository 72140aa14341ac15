package downstream

import (
	"strings"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

var codecs = map[hcmv3.HttpConnectionManager_CodecType]config.Codec{
	hcmv3.HttpConnectionManager_AUTO: config.AutoCodec, hcmv3.HttpConnectionManager_HTTP1: config.HTTP1, hcmv3.HttpConnectionManager_HTTP2: config.HTTP2,
}

var forwardClientCerts = map[hcmv3.HttpConnectionManager_ForwardClientCertDetails]config.ForwardClientCert{
	hcmv3.HttpConnectionManager_SANITIZE: config.SanitizeXFCC, hcmv3.HttpConnectionManager_FORWARD_ONLY: config.ForwardOnlyXFCC,
	hcmv3.HttpConnectionManager_APPEND_FORWARD: config.AppendForwardXFCC, hcmv3.HttpConnectionManager_SANITIZE_SET: config.SanitizeSetXFCC,
	hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY: config.AlwaysForwardOnlyXFCC,
}

// decodeHTTP ignores what only observes (access logs, tracing): the proxy has its own. Paths are always normalised, and
// drains have the proxy's time.
func decodeHTTP(p field.Problems, packed *anypb.Any) *config.HTTP {
	pb := new(hcmv3.HttpConnectionManager)
	if !p.Unpack("http_connection_manager", packed, pb) {
		return nil
	}
	codec, known := codecs[pb.GetCodecType()]
	if !known {
		p.Refuse("codec_type", "%v is not supported", pb.GetCodecType())
	}
	refuseHTTPFields(p, pb)
	h := &config.HTTP{
		Codec: codec, ServerName: pb.GetServerName(),
		MaxHeaderKiB:         min(field.AtLeastOne(pb.GetMaxRequestHeadersKb(), 60), 8192),
		MaxConcurrentStreams: field.AtLeastOne(pb.GetHttp2ProtocolOptions().GetMaxConcurrentStreams(), 100),
		ForwardClientCert:    forwardClientCerts[pb.GetForwardClientCertDetails()],
	}
	decodeTimeouts(h, p, pb)
	decodeRoutes(h, p, pb)
	decodeFilters(h, p, pb.GetHttpFilters())
	for _, upgrade := range pb.GetUpgradeConfigs() {
		switch strings.ToLower(upgrade.GetUpgradeType()) {
		case "websocket": // is always possible
		case "connect":
			h.Connect = field.Boolean(upgrade.GetEnabled(), true)
		default:
			p.Refuse("upgrade_configs", "%q is not supported", upgrade.GetUpgradeType())
		}
	}
	return h
}

func refuseHTTPFields(p field.Problems, pb *hcmv3.HttpConnectionManager) {
	// Who asks is known by certificate; nobody's word is taken for an address.
	p.Unsupported("use_remote_address", pb.GetUseRemoteAddress().GetValue())
	p.Unsupported("xff_num_trusted_hops", pb.GetXffNumTrustedHops() > 0)
	p.Unsupported("strip_port_mode", pb.GetStripAnyHostPort() || pb.GetStripMatchingHostPort())
	p.Unsupported("strip_trailing_host_dot", pb.GetStripTrailingHostDot())
	p.Unsupported("scoped_routes", pb.GetScopedRoutes() != nil)
	p.Unsupported("local_reply_config", pb.GetLocalReplyConfig() != nil)
	p.Unsupported("original_ip_detection_extensions", len(pb.GetOriginalIpDetectionExtensions()) > 0)
	p.Unsupported("early_header_mutation_extensions", len(pb.GetEarlyHeaderMutationExtensions()) > 0)
	p.Unsupported("request_id_extension", pb.GetRequestIdExtension() != nil)
	p.Unsupported("typed_header_validation_config", pb.GetTypedHeaderValidationConfig() != nil)
	p.Unsupported("path_normalization_options", pb.GetPathNormalizationOptions() != nil)
}

func decodeTimeouts(h *config.HTTP, p field.Problems, pb *hcmv3.HttpConnectionManager) {
	common := pb.GetCommonHttpProtocolOptions()
	h.IdleTimeout = p.Duration("common_http_protocol_options.idle_timeout", common.GetIdleTimeout(), time.Hour)
	h.HeadersTimeout = p.Duration("request_headers_timeout", pb.GetRequestHeadersTimeout(), 0)
	h.StreamIdleTimeout = p.Duration("stream_idle_timeout", pb.GetStreamIdleTimeout(), 5*time.Minute)
	h.RequestTimeout = p.Duration("request_timeout", pb.GetRequestTimeout(), 0)
}

func decodeRoutes(h *config.HTTP, p field.Problems, pb *hcmv3.HttpConnectionManager) {
	switch {
	case pb.GetRouteConfig() != nil:
		h.Routes = RouteTable(p.In("route_config"), pb.GetRouteConfig())
	case pb.GetRds().GetRouteConfigName() != "":
		h.RouteName = pb.GetRds().GetRouteConfigName()
	default:
		p.Refuse("route_specifier", "must be rds with a name, or route_config")
	}
}

func decodeFilters(h *config.HTTP, p field.Problems, filters []*hcmv3.HttpFilter) {
	p.Limit("http_filters", len(filters), maxFilters)
	for i, filter := range filters {
		p := p.At("http_filters", i).In("typed_config")
		switch kind := field.TypeOf(filter.GetTypedConfig()); {
		case filter.GetDisabled():
		case i == len(filters)-1 && kind != routerFilter:
			p.Refuse("type_url", "the last filter must be the router, not %q", kind)
		case kind == routerFilter:
			p.Unpack("router", filter.GetTypedConfig(), new(routerv3.Router))
		case kind == "envoy.extensions.filters.http.rbac.v3.RBAC":
			addRBAC(h, p, filter.GetTypedConfig())
		case !filter.GetIsOptional():
			p.Refuse("type_url", "%q is not supported", kind)
		}
	}
	if len(filters) == 0 {
		p.Refuse("http_filters", "is empty: the router is missing")
	}
}

const routerFilter = "envoy.extensions.filters.http.router.v3.Router"

func addRBAC(h *config.HTTP, p field.Problems, packed *anypb.Any) {
	filter := new(rbacv3.RBAC)
	if p.Unpack("rbac", packed, filter) {
		p.Unsupported("matcher", filter.GetMatcher() != nil || filter.GetShadowMatcher() != nil)
		h.RBAC = append(h.RBAC, decodeRBAC(p, filter.GetRules(), filter.GetShadowRules())...)
	}
}
