package envoy

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// router makes the routes that a view has of a snapshot.
type router struct {
	s *mesh.Snapshot
	v translate.View
}

// route is one HTTP route of a service's port, under one of its matches; nil matches everything.
func (r router) route(http *mesh.HTTPRoute, match *mesh.HTTPMatch, to translate.Request, retry *routev3.RetryPolicy) *routev3.Route {
	action := &routev3.RouteAction{
		Timeout:     durationpb.New(http.Timeout), // 0: none, where Envoy's default would be 15 s
		RetryPolicy: retry,
		HashPolicy:  r.hashPolicy(http, to),
	}
	r.setDestinations(action, http, to)
	setRewrite(action, http, match)
	add, remove := headerChanges(http.RequestHeaders)
	addBack, removeBack := headerChanges(http.ResponseHeaders)
	return &routev3.Route{
		Name: http.Name, Match: routeMatch(match), Action: &routev3.Route_Route{Route: action},
		RequestHeadersToAdd: add, RequestHeadersToRemove: remove,
		ResponseHeadersToAdd: addBack, ResponseHeadersToRemove: removeBack,
	}
}

// request is what a destination means for a request that came for another.
func (r router) request(d *mesh.Destination, to translate.Request) translate.Request {
	port := d.Port
	if port == 0 {
		port = to.Port
		if ports := r.v.Ports(r.s, d.Host); len(ports) == 1 {
			port = ports[0].Port // Istio: a service with one port needs no number
		}
	}
	return translate.Request{Service: d.Host, Port: port, Subset: d.Subset}
}

func (r router) setDestinations(action *routev3.RouteAction, http *mesh.HTTPRoute, to translate.Request) {
	plain := func(d *mesh.Destination) bool {
		for _, h := range []mesh.HeaderChanges{d.RequestHeaders, d.ResponseHeaders} {
			if len(h.Set)+len(h.Add)+len(h.Remove) > 0 {
				return false
			}
		}
		return true
	}
	if len(http.Destinations) == 1 && plain(&http.Destinations[0]) {
		name := r.request(&http.Destinations[0], to).OutboundName()
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: name}
		return
	}
	weighted := &routev3.WeightedCluster{}
	for i := range http.Destinations {
		weighted.Clusters = append(weighted.Clusters, r.weighted(http, i, to))
	}
	boundWeights(weighted.Clusters)
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
}

// boundWeights scales weights so that their sum fits 32 bits, as Envoy demands.
func boundWeights(clusters []*routev3.WeightedCluster_ClusterWeight) {
	var sum uint64
	for _, c := range clusters {
		sum += uint64(c.GetWeight().GetValue())
	}
	if sum > math.MaxUint32 {
		for _, c := range clusters {
			c.Weight.Value = uint32(uint64(c.Weight.Value) * math.MaxUint32 / sum)
		}
	}
}

func (r router) weighted(http *mesh.HTTPRoute, i int, to translate.Request) *routev3.WeightedCluster_ClusterWeight {
	d := &http.Destinations[i]
	weight := d.Weight
	if len(http.Destinations) == 1 && weight == 0 {
		weight = 100
	}
	add, remove := headerChanges(d.RequestHeaders)
	addBack, removeBack := headerChanges(d.ResponseHeaders)
	return &routev3.WeightedCluster_ClusterWeight{
		Name: r.request(d, to).OutboundName(), Weight: wrapperspb.UInt32(weight),
		RequestHeadersToAdd: add, RequestHeadersToRemove: remove,
		ResponseHeadersToAdd: addBack, ResponseHeadersToRemove: removeBack,
	}
}

// hashPolicy is that of the first destination with a consistent hash load balancer.
func (r router) hashPolicy(http *mesh.HTTPRoute, to translate.Request) []*routev3.RouteAction_HashPolicy {
	for i := range http.Destinations {
		balancer := r.v.Traffic(r.s, r.request(&http.Destinations[i], to)).LoadBalancer
		if balancer != nil && balancer.HashOn != nil {
			return []*routev3.RouteAction_HashPolicy{hashKey(balancer.HashOn)}
		}
	}
	return nil
}

func hashKey(k *mesh.HashKey) *routev3.RouteAction_HashPolicy {
	switch {
	case k.Header != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: k.Header}}}
	case k.Cookie != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{
			Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: k.Cookie}}}
	case k.Query != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: k.Query}}}
	}
	return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
		ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}}
}

func setRewrite(action *routev3.RouteAction, http *mesh.HTTPRoute, match *mesh.HTTPMatch) {
	if http.RewriteHost != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: http.RewriteHost}
	}
	if http.RewriteURI == "" {
		return
	}
	if match != nil && match.Path != nil && match.Path.Regex != nil {
		action.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern: &matcherv3.RegexMatcher{Regex: ".+"}, Substitution: strings.ReplaceAll(http.RewriteURI, `\`, `\\`),
		}
		return
	}
	action.PrefixRewrite = http.RewriteURI
}

func headerChanges(h mesh.HeaderChanges) (add []*corev3.HeaderValueOption, remove []string) {
	for _, name := range slices.Sorted(maps.Keys(h.Set)) {
		add = append(add, headerValue(name, h.Set[name], corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, name := range slices.Sorted(maps.Keys(h.Add)) {
		add = append(add, headerValue(name, h.Add[name], corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return add, h.Remove
}

// headerValue means value to the letter: Envoy takes what is between two '%' for a command.
func headerValue(name, value string, a corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: strings.ReplaceAll(value, "%", "%%")}, AppendAction: a}
}

func anyPath() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

func routeMatch(m *mesh.HTTPMatch) *routev3.RouteMatch {
	out := anyPath()
	if m == nil {
		return out
	}
	setPath(out, m)
	header := func(name string, match *mesh.StringMatch, not bool) {
		out.Headers = append(out.Headers, headerMatcher(name, match, not))
	}
	if m.Method != nil {
		header(":method", m.Method, false)
	}
	if m.Authority != nil {
		header(":authority", m.Authority, false)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		header(name, m.Headers[name], false)
	}
	for _, name := range slices.Sorted(maps.Keys(m.WithoutHeaders)) {
		header(name, m.WithoutHeaders[name], true)
	}
	for _, name := range slices.Sorted(maps.Keys(m.QueryParams)) {
		out.QueryParameters = append(out.QueryParameters, queryMatcher(name, m.QueryParams[name]))
	}
	return out
}

func setPath(out *routev3.RouteMatch, m *mesh.HTTPMatch) {
	if m.IgnoreCase {
		out.CaseSensitive = wrapperspb.Bool(false)
	}
	switch path := m.Path; {
	case path == nil:
	case path.Exact != nil:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: *path.Exact}
	case path.Prefix != nil:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: *path.Prefix}
	case path.Regex != nil && *path.Regex == "": // no path is empty
		out.PathSpecifier = &routev3.RouteMatch_Path{}
	default:
		matcher := stringMatcher(path).GetSafeRegex()
		if matcher != nil && m.IgnoreCase { // case_sensitive does not reach regular expressions
			matcher.Regex = "(?i)" + matcher.Regex
		}
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: matcher}
	}
}

// headerMatcher: a nil match means that the header is there. A missing header is as good as an empty one where it
// must not match (Istio's withoutHeaders).
func headerMatcher(name string, m *mesh.StringMatch, not bool) *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: name, InvertMatch: not}
	if m == nil {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	out.TreatMissingHeaderAsEmpty = not
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatcher(m)}
	return out
}

func queryMatcher(name string, m *mesh.StringMatch) *routev3.QueryParameterMatcher {
	if m == nil {
		return &routev3.QueryParameterMatcher{Name: name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.QueryParameterMatcher{Name: name,
		QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatcher(m)}}
}

// stringMatcher: Envoy takes neither a prefix nor an expression that is empty.
func stringMatcher(m *mesh.StringMatch) *matcherv3.StringMatcher {
	switch {
	case m.Exact != nil:
		return exactly(*m.Exact)
	case m.Regex != nil && *m.Regex == "":
		return exactly("")
	case m.Prefix != nil && *m.Prefix != "":
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: *m.Prefix}}
	case m.Suffix != nil:
		return regex(".*" + regexp.QuoteMeta(*m.Suffix))
	case m.Regex != nil:
		return regex(*m.Regex)
	}
	return regex(".*")
}

// regex matches the whole string (RE2).
func regex(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: expression},
	}}
}
