package config

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

func decodeRouteTable(p problems, pb *routev3.RouteConfiguration) *RouteTable {
	p.unsupported("vhds", pb.GetVhds() != nil)
	p.unsupported("ignore_path_parameters_in_path_matching", pb.GetIgnorePathParametersInPathMatching())
	p.unsupported("request_mirror_policies", len(pb.GetRequestMirrorPolicies()) > 0)
	p.unsupported("cluster_specifier_plugins", len(pb.GetClusterSpecifierPlugins()) > 0)
	p.unsupported("typed_per_filter_config", len(pb.GetTypedPerFilterConfig()) > 0)
	t := &RouteTable{
		Name: pb.GetName(), IgnorePort: pb.GetIgnorePortInHostMatching(), MostSpecificWins: pb.GetMostSpecificHeaderMutationsWins(),
		Headers: headerOps(p, pb),
	}
	p.limit("virtual_hosts", len(pb.GetVirtualHosts()), maxHosts)
	seen, routes := map[string]bool{}, 0
	for i, host := range pb.GetVirtualHosts() {
		p := p.at("virtual_hosts", i)
		if routes += len(host.GetRoutes()); routes > maxRoutes || len(seen) > maxHosts {
			p.refuse("routes", "are more than %d in all, or their domains", maxRoutes)
			return t
		}
		t.VirtualHosts = append(t.VirtualHosts, decodeHost(p, host, seen))
	}
	return t
}

func decodeHost(p problems, pb *routev3.VirtualHost, seen map[string]bool) *VirtualHost {
	p.unsupported("matcher", pb.GetMatcher() != nil)
	p.unsupported("require_tls", pb.GetRequireTls() != routev3.VirtualHost_NONE)
	p.unsupported("rate_limits", len(pb.GetRateLimits()) > 0)
	p.unsupported("cors", pb.GetCors() != nil)
	p.unsupported("hedge_policy", pb.GetHedgePolicy() != nil)
	p.unsupported("retry_policy_typed_config", pb.GetRetryPolicyTypedConfig() != nil)
	p.unsupported("request_mirror_policies", len(pb.GetRequestMirrorPolicies()) > 0)
	p.unsupported("typed_per_filter_config", len(pb.GetTypedPerFilterConfig()) > 0)
	h := &VirtualHost{
		Name: pb.GetName(), IncludeAttempts: pb.GetIncludeRequestAttemptCount(),
		AttemptsInResponse: pb.GetIncludeAttemptCountInResponse(), Headers: headerOps(p, pb),
		Retry: decodeRetry(p.in("retry_policy"), pb.GetRetryPolicy()),
	}
	for _, domain := range pb.GetDomains() {
		domain = strings.ToLower(domain)
		wild := strings.Count(domain, "*")
		if domain == "" || wild > 1 || wild == 1 && !strings.HasPrefix(domain, "*") && !strings.HasSuffix(domain, "*") {
			p.refuse("domains", "%q is not a domain", domain)
		}
		if seen[domain] {
			p.refuse("domains", "%q is used twice", domain)
		}
		seen[domain] = true
		h.Domains = append(h.Domains, domain)
	}
	if len(h.Domains) == 0 {
		p.refuse("domains", "is empty")
	}
	for i, route := range pb.GetRoutes() {
		h.Routes = append(h.Routes, decodeRoute(p.at("routes", i), route))
	}
	return h
}

func decodeRoute(p problems, pb *routev3.Route) *Route {
	p.unsupported("typed_per_filter_config", len(pb.GetTypedPerFilterConfig()) > 0)
	r := &Route{Name: pb.GetName(), Match: decodeMatch(p.in("match"), pb.GetMatch()), Headers: headerOps(p, pb)}
	switch {
	case pb.GetRoute() != nil:
		r.Forward = decodeForward(p.in("route"), pb.GetRoute())
	case pb.GetDirectResponse() != nil:
		r.Direct = decodeDirect(p.in("direct_response"), pb.GetDirectResponse())
	case pb.GetRedirect() != nil:
		r.Redirect = decodeRedirect(p.in("redirect"), pb.GetRedirect())
	case pb.GetNonForwardingAction() != nil:
		r.NonForwarding = true
	default:
		p.refuse("action", "must be route, direct_response or redirect")
	}
	return r
}

func decodeForward(p problems, pb *routev3.RouteAction) *Forward {
	p.unsupported("metadata_match", pb.GetMetadataMatch() != nil)
	p.unsupported("path_rewrite_policy", pb.GetPathRewritePolicy() != nil || pb.GetPathRewrite() != "")
	p.unsupported("request_mirror_policies", len(pb.GetRequestMirrorPolicies()) > 0)
	p.unsupported("rate_limits", len(pb.GetRateLimits()) > 0)
	p.unsupported("cors", pb.GetCors() != nil)
	p.unsupported("internal_redirect_policy", pb.GetInternalRedirectPolicy() != nil)
	p.unsupported("hedge_policy", pb.GetHedgePolicy() != nil)
	p.unsupported("max_stream_duration.grpc_timeout_header_offset", pb.GetMaxStreamDuration().GetGrpcTimeoutHeaderOffset() != nil)
	p.unsupported("max_grpc_timeout", pb.GetMaxGrpcTimeout() != nil || pb.GetGrpcTimeoutOffset() != nil) // max_stream_duration has it
	p.unsupported("retry_policy_typed_config", pb.GetRetryPolicyTypedConfig() != nil)
	p.unsupported("host_rewrite", pb.GetAutoHostRewrite().GetValue() || pb.GetHostRewriteHeader() != "" || pb.GetHostRewritePathRegex() != nil)
	limits := pb.GetMaxStreamDuration()
	f := &Forward{
		Timeout:           p.duration("timeout", pb.GetTimeout(), 15*time.Second),
		IdleTimeout:       p.duration("idle_timeout", pb.GetIdleTimeout(), 0),
		MaxStreamDuration: p.duration("max_stream_duration.max_stream_duration", limits.GetMaxStreamDuration(), 0),
		GRPCTimeoutMax:    p.duration("max_stream_duration.grpc_timeout_header_max", limits.GetGrpcTimeoutHeaderMax(), 0),
		Retry:             decodeRetry(p.in("retry_policy"), pb.GetRetryPolicy()),
		PrefixRewrite:     pb.GetPrefixRewrite(), HostRewrite: pb.GetHostRewriteLiteral(),
		ClusterNotFound: 503, AppendForwardedHost: pb.GetAppendXForwardedHost(),
	}
	p.unsupported("priority", pb.GetPriority() != corev3.RoutingPriority_DEFAULT) // there is one circuit breaker
	if pb.GetClusterNotFoundResponseCode() == routev3.RouteAction_NOT_FOUND {
		f.ClusterNotFound = 404
	}
	if rewrite := pb.GetRegexRewrite(); rewrite != nil {
		f.RegexRewrite = decodeRewrite(p.in("regex_rewrite"), rewrite.GetPattern().GetRegex(), rewrite.GetSubstitution())
	}
	for _, upgrade := range pb.GetUpgradeConfigs() {
		p.unsupported("upgrade_configs", !strings.EqualFold(upgrade.GetUpgradeType(), "websocket") || !boolean(upgrade.GetEnabled(), true))
	}
	for i, hash := range pb.GetHashPolicy() {
		f.Hash = append(f.Hash, decodeHash(p.at("hash_policy", i), hash))
	}
	f.decodeClusters(p, pb)
	return f
}

func (f *Forward) decodeClusters(p problems, pb *routev3.RouteAction) {
	switch {
	case pb.GetCluster() != "":
		f.Clusters, f.TotalWeight = []WeightedCluster{{Name: pb.GetCluster(), Weight: 1}}, 1
		return
	case pb.GetWeightedClusters() == nil:
		p.refuse("cluster_specifier", "must be cluster or weighted_clusters")
		return
	}
	p = p.in("weighted_clusters")
	split := pb.GetWeightedClusters()
	p.unsupported("header_name", split.GetHeaderName() != "" || split.GetUseHashPolicy().GetValue())
	p.limit("clusters", len(split.GetClusters()), maxClusters)
	for i, c := range split.GetClusters() {
		p := p.at("clusters", i)
		p.unsupported("metadata_match", c.GetMetadataMatch() != nil)
		p.unsupported("typed_per_filter_config", len(c.GetTypedPerFilterConfig()) > 0)
		if c.GetName() == "" {
			p.refuse("name", "is empty")
		}
		f.TotalWeight += uint64(c.GetWeight().GetValue())
		f.Clusters = append(f.Clusters, WeightedCluster{
			Name: c.GetName(), Weight: c.GetWeight().GetValue(), Headers: headerOps(p, c), HostRewrite: c.GetHostRewriteLiteral(),
		})
	}
	if f.TotalWeight == 0 || f.TotalWeight > 1<<32-1 {
		p.refuse("clusters", "weights sum to %d, outside 1..2^32-1", f.TotalWeight)
	}
}

// decodeRewrite turns Envoy's \1 into Go's ${1}, and a plain $ into $$.
func decodeRewrite(p problems, pattern, substitution string) *RegexRewrite {
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
			p.refuse("substitution", "%q has a stray backslash", substitution)
		}
	}
	return &RegexRewrite{Pattern: p.compile("pattern.regex", pattern, pattern), Substitution: b.String()}
}

func decodeHash(p problems, pb *routev3.RouteAction_HashPolicy) HashPolicy {
	h := HashPolicy{Terminal: pb.GetTerminal()}
	switch {
	case pb.GetHeader() != nil:
		p.unsupported("header.regex_rewrite", pb.GetHeader().GetRegexRewrite() != nil)
		h.Kind, h.Name = HashHeader, strings.ToLower(pb.GetHeader().GetHeaderName())
	case pb.GetCookie() != nil:
		h.Kind, h.Name, h.Path = HashCookie, pb.GetCookie().GetName(), pb.GetCookie().GetPath()
		if pb.GetCookie().GetTtl() != nil {
			ttl := p.duration("cookie.ttl", pb.GetCookie().GetTtl(), 0)
			h.TTL = &ttl
		}
	case pb.GetQueryParameter() != nil:
		h.Kind, h.Name = HashQuery, pb.GetQueryParameter().GetName()
	case pb.GetConnectionProperties().GetSourceIp():
		h.Kind = HashSourceIP
		return h
	default:
		p.refuse("policy_specifier", "is not supported")
		return h
	}
	if h.Name == "" {
		p.refuse("policy_specifier", "has no name")
	}
	return h
}

func decodeDirect(p problems, pb *routev3.DirectResponseAction) *DirectResponse {
	p.unsupported("body_format", pb.GetBodyFormat() != nil)
	p.unsupported("body.filename", pb.GetBody().GetFilename() != "" || pb.GetBody().GetEnvironmentVariable() != "")
	d := &DirectResponse{Status: int(pb.GetStatus()), Body: pb.GetBody().GetInlineBytes()}
	if body := pb.GetBody().GetInlineString(); body != "" {
		d.Body = []byte(body)
	}
	if d.Status < 200 || d.Status > 599 {
		p.refuse("status", "%d is not a final status", pb.GetStatus())
	}
	p.limit("body", len(d.Body), maxBodyBytes)
	return d
}

var redirectStatus = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
	routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
}

func decodeRedirect(p problems, pb *routev3.RedirectAction) *Redirect {
	p.unsupported("regex_rewrite", pb.GetRegexRewrite() != nil)
	p.unsupported("path_rewrite", pb.GetPathRewrite() != "")
	r := &Redirect{
		Status: redirectStatus[pb.GetResponseCode()], Scheme: pb.GetSchemeRedirect(), HTTPS: pb.GetHttpsRedirect(),
		Host: pb.GetHostRedirect(), Path: pb.GetPathRedirect(), PrefixRewrite: pb.GetPrefixRewrite(), StripQuery: pb.GetStripQuery(),
	}
	if r.Status == 0 {
		p.refuse("response_code", "%v is not known", pb.GetResponseCode())
	}
	if pb.GetPortRedirect() != 0 {
		r.Port = p.port("port_redirect", pb.GetPortRedirect())
	}
	for field, v := range map[string]string{"host_redirect": r.Host, "path_redirect": r.Path, "prefix_rewrite": r.PrefixRewrite, "scheme_redirect": r.Scheme} {
		if !headerValue(v) {
			p.refuse(field, "%q has control characters", v)
		}
	}
	return r
}
