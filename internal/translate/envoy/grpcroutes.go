package envoy

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// What gRPC sends with every call, so that matches on it are decided here: it would find neither in its metadata.
const grpcMethod = "POST"

// grpcRetryOn is the default: of Envoy's conditions, those that are gRPC codes (gRFC A44). What fails before it was
// sent gRPC tries again by itself.
const grpcRetryOn = "unavailable,cancelled"

// channelHash makes a channel stay with an endpoint (gRFC A42): what cookie and source address are to a browser.
const channelHash = "io.grpc.channel_id"

// GRPCRoutes are the routes for a target that asks for r.
func GRPCRoutes(s *mesh.Snapshot, v translate.View, target string, r translate.Request) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: target, VirtualHosts: []*routev3.VirtualHost{{
		Name: r.Service.Host() + ":" + portText(r.Port), Domains: []string{"*"},
		Routes: grpcRouter{router{s, v}, target}.service(r),
	}}}
}

type grpcRouter struct {
	router
	target string
}

// service are those of the VirtualService in force or, without one, the way to the service itself.
func (r grpcRouter) service(to translate.Request) []*routev3.Route {
	spec := r.v.VirtualService(r.s, to.Service)
	if spec == nil || len(spec.HTTP) == 0 {
		self := mesh.HTTPRoute{Destinations: []mesh.Destination{{Host: to.Service}}}
		return []*routev3.Route{r.route(&self, anyPath(), to)}
	}
	var out []*routev3.Route
	for i := range spec.HTTP {
		http := &spec.HTTP[i]
		if len(http.Matches) == 0 {
			return append(out, r.route(http, anyPath(), to)) // what follows is out of reach
		}
		for j := range http.Matches {
			for _, match := range r.matches(&http.Matches[j], to) {
				out = append(out, r.route(http, match, to))
			}
		}
	}
	return out
}

// matches are one match as gRPC does it: none, if no call can match it.
func (r grpcRouter) matches(m *mesh.HTTPMatch, to translate.Request) []*routev3.RouteMatch {
	switch {
	case m.Port != 0 && m.Port != to.Port, len(m.QueryParams) > 0,
		!matchesText(m.Method, grpcMethod), !matchesText(m.Authority, r.target):
		return nil
	}
	rest := *m
	rest.Method, rest.Authority, rest.WithoutHeaders = nil, nil, nil
	return without(routeMatch(&rest), m.WithoutHeaders)
}

// maxWithout bounds the headers of one withoutHeaders: each doubles the routes.
const maxWithout = 5

// without adds "header is absent or does not match". gRPC takes an absent header to match nothing, inverted or not
// (its HeaderMatcher), so either case is a match of its own.
func without(match *routev3.RouteMatch, headers map[string]*mesh.StringMatch) []*routev3.RouteMatch {
	if len(headers) > maxWithout {
		return nil
	}
	out := []*routev3.RouteMatch{match}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		absent := headerMatcher(name, nil, true)
		absent.TreatMissingHeaderAsEmpty = false
		var both []*routev3.RouteMatch
		for _, m := range out {
			both = append(both, withHeader(m, absent))
			if value := headers[name]; value != nil {
				differs := headerMatcher(name, value, true)
				differs.TreatMissingHeaderAsEmpty = false
				both = append(both, withHeader(m, differs))
			}
		}
		out = both
	}
	return out
}

func withHeader(m *routev3.RouteMatch, h *routev3.HeaderMatcher) *routev3.RouteMatch {
	return &routev3.RouteMatch{
		PathSpecifier: m.PathSpecifier, CaseSensitive: m.CaseSensitive, Headers: append(slices.Clip(m.Headers), h),
	}
}

// matchesText tells whether a match holds for a text that is always there.
func matchesText(m *mesh.StringMatch, text string) bool {
	switch {
	case m == nil:
		return true
	case m.Exact != nil:
		return *m.Exact == text
	case m.Prefix != nil:
		return strings.HasPrefix(text, *m.Prefix)
	case m.Suffix != nil:
		return strings.HasSuffix(text, *m.Suffix)
	case m.Regex != nil:
		matched, err := regexp.MatchString("^(?:"+*m.Regex+")$", text)
		return err == nil && matched
	}
	return true
}

func (r grpcRouter) route(http *mesh.HTTPRoute, match *routev3.RouteMatch, to translate.Request) *routev3.Route {
	action := &routev3.RouteAction{RetryPolicy: grpcRetry(http.Retries), HashPolicy: r.grpcHash(http, to)}
	if http.Timeout > 0 {
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(http.Timeout)}
	}
	r.setDestinations(action, http, to)
	return &routev3.Route{Name: http.Name, Match: match, Action: &routev3.Route_Route{Route: action}}
}

func grpcRetry(retries *mesh.Retries) *routev3.RetryPolicy {
	if retries == nil {
		return &routev3.RetryPolicy{RetryOn: grpcRetryOn, NumRetries: wrapperspb.UInt32(defaultRetries)}
	}
	if retries.Attempts == 0 {
		return nil
	}
	on := retries.On
	if on == "" {
		on = grpcRetryOn
	}
	return &routev3.RetryPolicy{RetryOn: on, NumRetries: wrapperspb.UInt32(retries.Attempts)}
}

// grpcHash is that of the first destination with a consistent hash load balancer.
func (r grpcRouter) grpcHash(http *mesh.HTTPRoute, to translate.Request) []*routev3.RouteAction_HashPolicy {
	policies := r.hashPolicy(http, to)
	if len(policies) > 0 && policies[0].GetHeader() == nil {
		return []*routev3.RouteAction_HashPolicy{{PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
			FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: channelHash},
		}}}
	}
	return policies
}
