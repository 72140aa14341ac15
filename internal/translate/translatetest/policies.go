package translatetest

import (
	"time"

	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// some draws one of the values half of the time, else zero.
func some[T any](t *rapid.T, from ...T) (zero T) {
	if i := rapid.IntRange(-len(from), len(from)-1).Draw(t, "some"); i >= 0 {
		return from[i]
	}
	return zero
}

// texts are what people may write where an exact value, prefix or expression is asked for, the odd ones included.
var (
	texts       = []string{"", "a", "/", "/api", "A b%20", "100%", "ü", `\1`, "$", "*", "(", "x,y"}
	expressions = []string{"", "a", ".*", "(?i)A|b", "/v[0-9]+/.{0,64}", `\d{3,200}`, "(a|b|c){1,100}", `[\p{Greek}-]*`}
)

const everyCondition = "5xx,gateway-error,reset,reset-before-request,connect-failure,refused-stream,retriable-4xx,retriable-status-codes," +
	"cancelled,deadline-exceeded,internal,resource-exhausted,unavailable,envoy-ratelimited,retriable-headers"

func stringMatch(t *rapid.T) *mesh.StringMatch {
	text, expression := pick(t, texts), pick(t, expressions)
	return pick(t, []*mesh.StringMatch{{Exact: &text}, {Prefix: &text}, {Regex: &expression}})
}

func stringMatches(t *rapid.T, names ...string) map[string]*mesh.StringMatch {
	out := map[string]*mesh.StringMatch{}
	for _, name := range names {
		switch rapid.IntRange(0, 5).Draw(t, name) {
		case 0:
			out[name] = nil
		case 1:
			out[name] = stringMatch(t)
		}
	}
	return out
}

func httpMatch(t *rapid.T) mesh.HTTPMatch {
	m := mesh.HTTPMatch{
		IgnoreCase: rapid.Bool().Draw(t, "case"), Port: some[uint16](t, 80),
		Headers: stringMatches(t, "x-a", "cookie"), WithoutHeaders: stringMatches(t, "x-b"), QueryParams: stringMatches(t, "q"),
	}
	for _, field := range []**mesh.StringMatch{&m.Path, &m.Method, &m.Authority} {
		if rapid.IntRange(0, 2).Draw(t, "field") == 0 {
			*field = stringMatch(t)
		}
	}
	return m
}

func headerChanges(t *rapid.T) mesh.HeaderChanges {
	return mesh.HeaderChanges{
		Set:    some(t, map[string]string{"x-set": pick(t, texts), "X-Upper": "%REQ(x-a)%"}),
		Add:    some(t, map[string]string{"x-add": pick(t, texts)}),
		Remove: some(t, []string{"x-gone"}, []string{"User-Agent", "x-gone"}),
	}
}

func destination(t *rapid.T) mesh.Destination {
	return mesh.Destination{
		Host: pick(t, services), Subset: some(t, "v1", "v2"), Port: some[uint16](t, 80, 8080), Weight: some[uint32](t, 1, 100, 1<<31-1),
		RequestHeaders: headerChanges(t), ResponseHeaders: headerChanges(t),
	}
}

func httpRoute(t *rapid.T) mesh.HTTPRoute {
	route := mesh.HTTPRoute{
		Name: some(t, "one", "two words"), Timeout: some(t, time.Millisecond, 1500*time.Millisecond, 24*time.Hour),
		RewriteURI: some(t, "/new", `/a\1b`, "relative", "/100%"), RewriteHost: some(t, "other.example", "catalog"),
		RequestHeaders: headerChanges(t), ResponseHeaders: headerChanges(t),
		Retries: some(t, &mesh.Retries{}, &mesh.Retries{Attempts: 3}, &mesh.Retries{Attempts: 2, On: everyCondition}, &mesh.Retries{Attempts: 1, PerTryTimeout: time.Second, On: "5xx, 429,reset,retriable-headers"}),
	}
	for range rapid.IntRange(0, 3).Draw(t, "matches") {
		route.Matches = append(route.Matches, httpMatch(t))
	}
	route.Destinations = []mesh.Destination{destination(t)}
	for range rapid.IntRange(0, 2).Draw(t, "destinations") {
		route.Destinations = append(route.Destinations, destination(t))
	}
	if len(route.Destinations) > 1 {
		route.Destinations[0].Weight++ // their sum is positive
	}
	return route
}

func virtualService(t *rapid.T) *mesh.VirtualService {
	v := &mesh.VirtualService{Hosts: []mesh.ServiceName{pick(t, services)}}
	for range rapid.IntRange(1, 3).Draw(t, "routes") {
		v.HTTP = append(v.HTTP, httpRoute(t))
	}
	return v
}

var balances = []*mesh.LocalityBalance{
	nil, {Disabled: true}, {Failover: []mesh.RegionFailover{{From: "eu", To: "us"}}},
	{FailoverPriority: []string{"topology.istio.io/network", "version=v1"}},
	{Distribute: []mesh.Distribute{{From: "eu/*", To: map[string]uint32{"eu/1/*": 70, "us/*": 30}}}},
}

func loadBalancer(t *rapid.T) *mesh.LoadBalancer {
	b := &mesh.LoadBalancer{
		Algorithm: some(t, mesh.LeastRequest, mesh.RoundRobin, mesh.Random, mesh.RingHash, mesh.Maglev), Locality: pick(t, balances),
	}
	if b.Algorithm == mesh.RingHash || b.Algorithm == mesh.Maglev {
		b.HashOn = pick(t, []*mesh.HashKey{{Header: "user"}, {Cookie: "c"}, {Query: "q"}, {SourceIP: true}})
		b.MinimumRingSize = some[uint64](t, 1, 1024, 64<<10)
	}
	return b
}

func trafficPolicy(t *rapid.T) mesh.TrafficPolicy {
	p := mesh.TrafficPolicy{LoadBalancer: loadBalancer(t)}
	p.ConnectionPool = some(t, &mesh.ConnectionPool{
		MaxConnections: some[uint32](t, 1, 1<<31-1), ConnectTimeout: some(t, time.Millisecond, time.Hour), IdleTimeout: some(t, time.Millisecond, 48*time.Hour),
		MaxPendingRequests: some[uint32](t, 1), MaxRequests: some[uint32](t, 7), MaxRequestsPerConnection: some[uint32](t, 1),
		MaxRetries: some[uint32](t, 1, 1<<31-1),
	})
	p.OutlierDetection = some(t, &mesh.OutlierDetection{
		Consecutive5xx: some[uint32](t, 1), ConsecutiveGatewayErrors: some[uint32](t, 1<<32-1), Interval: some(t, time.Millisecond),
		BaseEjectionTime: some(t, time.Millisecond, 24*time.Hour), MaxEjectionPercent: some[uint32](t, 1, 100), MinHealthPercent: some[uint32](t, 1, 100),
	})
	return p
}

func destinationRule(t *rapid.T) *mesh.DestinationRule {
	rule := &mesh.DestinationRule{Host: pick(t, services), Traffic: trafficPolicy(t)}
	if rapid.IntRange(0, 3).Draw(t, "port") == 0 {
		rule.Ports = map[uint16]mesh.TrafficPolicy{80: trafficPolicy(t)}
	}
	for _, name := range []string{"v1", "v2"} {
		if rapid.Bool().Draw(t, name) {
			subset := mesh.Subset{Name: name, Labels: map[string]string{"version": name}}
			if rapid.Bool().Draw(t, "own") {
				traffic := trafficPolicy(t)
				subset.Traffic = &traffic
			}
			rule.Subsets = append(rule.Subsets, subset)
		}
	}
	return rule
}

// patterns draws a list of Istio's values: exact, prefix*, *suffix or *.
func patterns(t *rapid.T, exact ...string) []string {
	return some(t, exact, []string{"*"}, []string{exact[0] + "*", "*" + exact[0]})
}

func authorizationPolicy(t *rapid.T) *mesh.AuthorizationPolicy {
	p := &mesh.AuthorizationPolicy{
		Action: pick(t, []mesh.AuthorizationAction{mesh.Allow, mesh.Deny}), Selector: some(t, map[string]string{"version": "v1"}),
	}
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		p.Rules = append(p.Rules, mesh.AuthorizationRule{
			From: some(t, []mesh.AuthorizationSource{{}, {
				Principals: patterns(t, "a.mesh/ns/shop/sa/sa1", "*/ns/shop/sa/sa2"), NotPrincipals: patterns(t, "b.mesh/ns/pay/sa/sa1"),
				Namespaces: patterns(t, "shop"), NotNamespaces: patterns(t, "p+y"),
				TrustDomains: patterns(t, "a.mesh"), NotTrustDomains: patterns(t, "c.mesh"),
			}}),
			To: some(t, []mesh.AuthorizationOperation{{}, {
				Hosts: patterns(t, "catalog.shop.svc.cluster.local", "catalog:80"), NotHosts: patterns(t, "x(y"),
				Ports: some(t, []string{"80", "8080"}, []string{"http"}), NotPorts: some(t, []string{"1"}),
				Methods: patterns(t, "GET", "POST"), NotMethods: patterns(t, "DELETE"), Paths: patterns(t, "/api", "/"), NotPaths: patterns(t, "/admin"),
			}}),
		})
	}
	return p
}
