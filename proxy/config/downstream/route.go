package downstream

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

// RouteTable decodes a route configuration; what p refuses makes it void.
func RouteTable(p field.Problems, pb *routev3.RouteConfiguration) *config.RouteTable {
	p.Unsupported("vhds", pb.GetVhds() != nil)
	p.Unsupported("ignore_path_parameters_in_path_matching", pb.GetIgnorePathParametersInPathMatching())
	p.Unsupported("request_mirror_policies", len(pb.GetRequestMirrorPolicies()) > 0)
	p.Unsupported("cluster_specifier_plugins", len(pb.GetClusterSpecifierPlugins()) > 0)
	p.Unsupported("typed_per_filter_config", len(pb.GetTypedPerFilterConfig()) > 0)
	t := &config.RouteTable{
		Name: pb.GetName(), IgnorePort: pb.GetIgnorePortInHostMatching(), MostSpecificWins: pb.GetMostSpecificHeaderMutationsWins(),
		Headers: headerOps(p, pb),
	}
	p.Limit("virtual_hosts", len(pb.GetVirtualHosts()), maxHosts)
	seen, routes := map[string]bool{}, 0
	for i, host := range pb.GetVirtualHosts() {
		p := p.At("virtual_hosts", i)
		if routes += len(host.GetRoutes()); routes > maxRoutes || len(seen) > maxHosts {
			p.Refuse("routes", "are more than %d in all, or their domains", maxRoutes)
			return t
		}
		t.VirtualHosts = append(t.VirtualHosts, decodeHost(p, host, seen))
	}
	return t
}

func decodeHost(p field.Problems, pb *routev3.VirtualHost, seen map[string]bool) *config.VirtualHost {
	p.Unsupported("matcher", pb.GetMatcher() != nil)
	p.Unsupported("require_tls", pb.GetRequireTls() != routev3.VirtualHost_NONE)
	p.Unsupported("rate_limits", len(pb.GetRateLimits()) > 0)
	p.Unsupported("cors", pb.GetCors() != nil)
	p.Unsupported("hedge_policy", pb.GetHedgePolicy() != nil)
	p.Unsupported("retry_policy_typed_config", pb.GetRetryPolicyTypedConfig() != nil)
	p.Unsupported("request_mirror_policies", len(pb.GetRequestMirrorPolicies()) > 0)
	p.Unsupported("typed_per_filter_config", len(pb.GetTypedPerFilterConfig()) > 0)
	h := &config.VirtualHost{
		Name: pb.GetName(), IncludeAttempts: pb.GetIncludeRequestAttemptCount(),
		AttemptsInResponse: pb.GetIncludeAttemptCountInResponse(), Headers: headerOps(p, pb),
		Retry: decodeRetry(p.In("retry_policy"), pb.GetRetryPolicy()),
	}
	for _, domain := range pb.GetDomains() {
		domain = strings.ToLower(domain)
		wild := strings.Count(domain, "*")
		if domain == "" || wild > 1 || wild == 1 && !strings.HasPrefix(domain, "*") && !strings.HasSuffix(domain, "*") {
			p.Refuse("domains", "%q is not a domain", domain)
		}
		if seen[domain] {
			p.Refuse("domains", "%q is used twice", domain)
		}
		seen[domain] = true
		h.Domains = append(h.Domains, domain)
	}
	if len(h.Domains) == 0 {
		p.Refuse("domains", "is empty")
	}
	for i, route := range pb.GetRoutes() {
		h.Routes = append(h.Routes, decodeRoute(p.At("routes", i), route))
	}
	return h
}

func decodeRoute(p field.Problems, pb *routev3.Route) *config.Route {
	p.Unsupported("typed_per_filter_config", len(pb.GetTypedPerFilterConfig()) > 0)
	r := &config.Route{Name: pb.GetName(), Match: decodeMatch(p.In("match"), pb.GetMatch()), Headers: headerOps(p, pb)}
	switch {
	case pb.GetRoute() != nil:
		r.Forward = decodeForward(p.In("route"), pb.GetRoute())
	case pb.GetDirectResponse() != nil:
		r.Direct = decodeDirect(p.In("direct_response"), pb.GetDirectResponse())
	case pb.GetRedirect() != nil:
		r.Redirect = decodeRedirect(p.In("redirect"), pb.GetRedirect())
	case pb.GetNonForwardingAction() != nil:
		r.NonForwarding = true
	default:
		p.Refuse("action", "must be route, direct_response or redirect")
	}
	return r
}

func decodeForward(p field.Problems, pb *routev3.RouteAction) *config.Forward {
	p.Unsupported("metadata_match", pb.GetMetadataMatch() != nil)
	p.Unsupported("path_rewrite_policy", pb.GetPathRewritePolicy() != nil || pb.GetPathRewrite() != "")
	p.Unsupported("request_mirror_policies", len(pb.GetRequestMirrorPolicies()) > 0)
	p.Unsupported("rate_limits", len(pb.GetRateLimits()) > 0)
	p.Unsupported("cors", pb.GetCors() != nil)
	p.Unsupported("internal_redirect_policy", pb.GetInternalRedirectPolicy() != nil)
	p.Unsupported("hedge_policy", pb.GetHedgePolicy() != nil)
	p.Unsupported("max_stream_duration.grpc_timeout_header_offset", pb.GetMaxStreamDuration().GetGrpcTimeoutHeaderOffset() != nil)
	p.Unsupported("max_grpc_timeout", pb.GetMaxGrpcTimeout() != nil || pb.GetGrpcTimeoutOffset() != nil) // max_stream_duration has it
	p.Unsupported("retry_policy_typed_config", pb.GetRetryPolicyTypedConfig() != nil)
	p.Unsupported("host_rewrite", pb.GetAutoHostRewrite().GetValue() || pb.GetHostRewriteHeader() != "" || pb.GetHostRewritePathRegex() != nil)
	limits := pb.GetMaxStreamDuration()
	f := &config.Forward{
		Timeout:           p.Duration("timeout", pb.GetTimeout(), 15*time.Second),
		IdleTimeout:       p.Duration("idle_timeout", pb.GetIdleTimeout(), 0),
		MaxStreamDuration: p.Duration("max_stream_duration.max_stream_duration", limits.GetMaxStreamDuration(), 0),
		GRPCTimeoutMax:    p.Duration("max_stream_duration.grpc_timeout_header_max", limits.GetGrpcTimeoutHeaderMax(), 0),
		Retry:             decodeRetry(p.In("retry_policy"), pb.GetRetryPolicy()),
		PrefixRewrite:     pb.GetPrefixRewrite(), HostRewrite: pb.GetHostRewriteLiteral(),
		ClusterNotFound: 503, AppendForwardedHost: pb.GetAppendXForwardedHost(),
	}
	p.Unsupported("priority", pb.GetPriority() != corev3.RoutingPriority_DEFAULT) // there is one circuit breaker
	if pb.GetClusterNotFoundResponseCode() == routev3.RouteAction_NOT_FOUND {
		f.ClusterNotFound = 404
	}
	if rewrite := pb.GetRegexRewrite(); rewrite != nil {
		f.RegexRewrite = decodeRewrite(p.In("regex_rewrite"), rewrite.GetPattern().GetRegex(), rewrite.GetSubstitution())
	}
	for _, upgrade := range pb.GetUpgradeConfigs() {
		p.Unsupported("upgrade_configs", !strings.EqualFold(upgrade.GetUpgradeType(), "websocket") || !field.Boolean(upgrade.GetEnabled(), true))
	}
	for i, hash := range pb.GetHashPolicy() {
		f.Hash = append(f.Hash, decodeHash(p.At("hash_policy", i), hash))
	}
	decodeClusters(f, p, pb)
	return f
}

func decodeClusters(f *config.Forward, p field.Problems, pb *routev3.RouteAction) {
	switch {
	case pb.GetCluster() != "":
		f.Clusters, f.TotalWeight = []config.WeightedCluster{{Name: pb.GetCluster(), Weight: 1}}, 1
		return
	case pb.GetWeightedClusters() == nil:
		p.Refuse("cluster_specifier", "must be cluster or weighted_clusters")
		return
	}
	p = p.In("weighted_clusters")
	split := pb.GetWeightedClusters()
	p.Unsupported("header_name", split.GetHeaderName() != "" || split.GetUseHashPolicy().GetValue())
	p.Limit("clusters", len(split.GetClusters()), maxClusters)
	for i, c := range split.GetClusters() {
		p := p.At("clusters", i)
		p.Unsupported("metadata_match", c.GetMetadataMatch() != nil)
		p.Unsupported("typed_per_filter_config", len(c.GetTypedPerFilterConfig()) > 0)
		if c.GetName() == "" {
			p.Refuse("name", "is empty")
		}
		f.TotalWeight += uint64(c.GetWeight().GetValue())
		f.Clusters = append(f.Clusters, config.WeightedCluster{
			Name: c.GetName(), Weight: c.GetWeight().GetValue(), Headers: headerOps(p, c), HostRewrite: c.GetHostRewriteLiteral(),
		})
	}
	if f.TotalWeight == 0 || f.TotalWeight > 1<<32-1 {
		p.Refuse("clusters", "weights sum to %d, outside 1..2^32-1", f.TotalWeight)
	}
}

// decodeRewrite turns Envoy's \1 into Go's ${1}, and a plain $ into $$.
func decodeRewrite(p field.Problems, pattern, substitution string) *config.RegexRewrite {
	var b strings.Builder
	for i := 0; i < len(substitution); i++ {
		switch c := substitution[i]; {
		case c == '$':
			b.WriteString("$$")
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(substitution) && substitution[i+1] >= '0' && substitution[i+1] <= '9':
			i++
			b.WriteString("${" + substitution[i:i+1] + "}")
		case i+1 < len(substitution) && substitution[i+1] == '\\':
			i++
			b.WriteByte('\\')
		default:
			p.Refuse("substitution", "%q has a stray backslash", substitution)
		}
	}
	return &config.RegexRewrite{Pattern: p.Compile("pattern.regex", pattern, pattern), Substitution: b.String()}
}

func decodeHash(p field.Problems, pb *routev3.RouteAction_HashPolicy) config.HashPolicy {
	h := config.HashPolicy{Terminal: pb.GetTerminal()}
	switch {
	case pb.GetHeader() != nil:
		p.Unsupported("header.regex_rewrite", pb.GetHeader().GetRegexRewrite() != nil)
		h.Kind, h.Name = config.HashHeader, strings.ToLower(pb.GetHeader().GetHeaderName())
	case pb.GetCookie() != nil:
		h.Kind, h.Name, h.Path = config.HashCookie, pb.GetCookie().GetName(), pb.GetCookie().GetPath()
		if pb.GetCookie().GetTtl() != nil {
			ttl := p.Duration("cookie.ttl", pb.GetCookie().GetTtl(), 0)
			h.TTL = &ttl
		}
	case pb.GetQueryParameter() != nil:
		h.Kind, h.Name = config.HashQuery, pb.GetQueryParameter().GetName()
	case pb.GetConnectionProperties().GetSourceIp():
		h.Kind = config.HashSourceIP
		return h
	default:
		p.Refuse("policy_specifier", "is not supported")
		return h
	}
	if h.Name == "" {
		p.Refuse("policy_specifier", "has no name")
	}
	return h
}

func decodeDirect(p field.Problems, pb *routev3.DirectResponseAction) *config.DirectResponse {
	p.Unsupported("body_format", pb.GetBodyFormat() != nil)
	p.Unsupported("body.filename", pb.GetBody().GetFilename() != "" || pb.GetBody().GetEnvironmentVariable() != "")
	d := &config.DirectResponse{Status: int(pb.GetStatus()), Body: pb.GetBody().GetInlineBytes()}
	if body := pb.GetBody().GetInlineString(); body != "" {
		d.Body = []byte(body)
	}
	if d.Status < 200 || d.Status > 599 {
		p.Refuse("status", "%d is not a final status", pb.GetStatus())
	}
	p.Limit("body", len(d.Body), maxBodyBytes)
	return d
}

var redirectStatus = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
	routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
}

func decodeRedirect(p field.Problems, pb *routev3.RedirectAction) *config.Redirect {
	p.Unsupported("regex_rewrite", pb.GetRegexRewrite() != nil)
	p.Unsupported("path_rewrite", pb.GetPathRewrite() != "")
	r := &config.Redirect{
		Status: redirectStatus[pb.GetResponseCode()], Scheme: pb.GetSchemeRedirect(), HTTPS: pb.GetHttpsRedirect(),
		Host: pb.GetHostRedirect(), Path: pb.GetPathRedirect(), PrefixRewrite: pb.GetPrefixRewrite(), StripQuery: pb.GetStripQuery(),
	}
	if r.Status == 0 {
		p.Refuse("response_code", "%v is not known", pb.GetResponseCode())
	}
	if pb.GetPortRedirect() != 0 {
		r.Port = p.Port("port_redirect", pb.GetPortRedirect())
	}
	for name, v := range map[string]string{"host_redirect": r.Host, "path_redirect": r.Path, "prefix_rewrite": r.PrefixRewrite, "scheme_redirect": r.Scheme} {
		if !field.HeaderValue(v) {
			p.Refuse(name, "%q has control characters", v)
		}
	}
	return r
}
