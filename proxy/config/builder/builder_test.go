package builder

import (
	"errors"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbachttp "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	rbacnetwork "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	snicluster "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
)

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func body(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func address(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
}

func edsCluster(t testing.TB, name string) *clusterv3.Cluster {
	tls := &tlsv3.UpstreamTlsContext{Sni: "outbound_.80_._." + name, CommonTlsContext: &tlsv3.CommonTlsContext{
		AlpnProtocols: []string{"periplus-http/1.1"},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_URI,
				Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "spiffe://eu-west.mesh/ns/shop/sa/catalog"}},
			}}}}}}}
	return &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		LbPolicy: clusterv3.Cluster_LEAST_REQUEST,
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold:   &typev3.Percent{Value: 0},
			LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{}}},
		OutlierDetection: &clusterv3.OutlierDetection{Consecutive_5Xx: wrapperspb.UInt32(7)},
		TransportSocket:  &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, tls)}},
	}
}

func assignment(name string, ips ...string) *endpointv3.ClusterLoadAssignment {
	metadata, _ := structpb.NewStruct(map[string]any{"cluster": "eu-west", "network": "n1", "workload": "catalog", "gateway": true, "stands_for": 100})
	locality := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Region: "eu", Zone: "a"}, LoadBalancingWeight: wrapperspb.UInt32(3)}
	for _, ip := range ips {
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			Metadata:            &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"periplus": metadata}},
			LoadBalancingWeight: wrapperspb.UInt32(2),
			HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(ip, 8080)}}})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}}
}

func routes(name string, clusters ...string) *routev3.RouteConfiguration {
	split := &routev3.WeightedCluster{}
	for _, c := range clusters {
		split.Clusters = append(split.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: c, Weight: wrapperspb.UInt32(50)})
	}
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "catalog", Domains: []string{"Catalog.shop", "catalog.shop:80"},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
				Headers: []*routev3.HeaderMatcher{{Name: "X-Beta", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
					StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "1"}}}}}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: split},
				Timeout:          durationpb.New(0),
				RetryPolicy:      &routev3.RetryPolicy{RetryOn: "connect-failure,503", NumRetries: wrapperspb.UInt32(2)},
			}},
			RequestHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "X-A", Value: "100%%"}},
				{Header: &corev3.HeaderValue{Key: "X-Empty"}}, {Header: &corev3.HeaderValue{Key: "X-Kept"}, KeepEmptyValue: true}},
		}},
	}}}
}

func filter(t testing.TB, name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, m)}}
}

func httpListener(t testing.TB, name, routes string) *listenerv3.Listener {
	rbac := &rbachttp.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{"p": {
		Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{
			Path: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "/admin"}}}}}}},
		Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_NotId{NotId: &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}}}},
	}}}}
	hcm := &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: routes}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "rbac", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(t, rbac)}},
			{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(t, &routerv3.Router{})}}},
	}
	return &listenerv3.Listener{Name: name, Address: address("127.0.0.1", 15001), TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{filter(t, "hcm", hcm)}}}}
}

func gatewayListener(t testing.TB) *listenerv3.Listener {
	return &listenerv3.Listener{Name: "eastwest", Address: address("127.0.0.1", 15443), FilterChains: []*listenerv3.FilterChain{{
		FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls"},
		Filters: []*listenerv3.Filter{filter(t, "sni", &snicluster.SniCluster{}),
			filter(t, "tcp", &tcpv3.TcpProxy{StatPrefix: "x", ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: "BlackHole"}})},
	}}}
}

func one(t testing.TB, typ xds.Type, name string, m proto.Message) config.Update {
	return config.Update{Type: typ, Upserts: []config.Resource{{Name: name, Body: body(t, m)}}}
}

func mustApply(t testing.TB, b *Builder, u config.Update) *config.Config {
	t.Helper()
	c, err := b.Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBuilderJoinsAndKeepsWhatDidNotChange(t *testing.T) {
	b := New()
	mustApply(t, b, one(t, xds.Cluster, "c", edsCluster(t, "c")))
	mustApply(t, b, one(t, xds.Endpoints, "c", assignment("c", "10.0.0.1")))
	mustApply(t, b, one(t, xds.Listener, "l", httpListener(t, "l", "outbound")))
	if b.Latest().Ready {
		t.Error("ready without routes")
	}
	c1 := mustApply(t, b, one(t, xds.Route, "outbound", routes("outbound", "c")))
	if !c1.Ready {
		t.Error("not ready with everything there")
	}
	c2 := mustApply(t, b, one(t, xds.Endpoints, "c", assignment("c", "10.0.0.1", "10.0.0.2")))
	if c2.Clusters["c"].Settings != c1.Clusters["c"].Settings || c2.Listeners["l"] != c1.Listeners["l"] || c2.Routes["outbound"] != c1.Routes["outbound"] {
		t.Error("an endpoint change replaced what it does not touch")
	}
	if len(c1.Clusters["c"].Endpoints.Localities[0].Endpoints) != 1 || len(c2.Clusters["c"].Endpoints.Localities[0].Endpoints) != 2 {
		t.Error("published config changed, or the new one did not")
	}
	c3 := mustApply(t, b, one(t, xds.Endpoints, "c", assignment("c", "10.0.0.1", "10.0.0.2")))
	if c3.Clusters["c"] != c2.Clusters["c"] {
		t.Error("an equal resource was rebuilt")
	}
}

func TestRemovalOfWhatIsReferredToIsNotBelieved(t *testing.T) {
	b := New()
	mustApply(t, b, one(t, xds.Cluster, "c", edsCluster(t, "c")))
	mustApply(t, b, one(t, xds.Endpoints, "c", assignment("c", "10.0.0.1")))
	mustApply(t, b, one(t, xds.Listener, "l", httpListener(t, "l", "outbound")))
	mustApply(t, b, one(t, xds.Route, "outbound", routes("outbound", "c")))
	mustApply(t, b, config.Update{Type: xds.Endpoints, Removed: []string{"c"}})
	c := mustApply(t, b, config.Update{Type: xds.Route, Removed: []string{"outbound"}})
	if c.Clusters["c"].Endpoints == nil || c.Routes["outbound"] == nil {
		t.Fatal("removed although referred to")
	}
	mustApply(t, b, config.Update{Type: xds.Cluster, Removed: []string{"c"}})
	c = mustApply(t, b, config.Update{Type: xds.Listener, Removed: []string{"l"}})
	if len(c.Clusters)+len(c.Routes)+len(c.Listeners)+len(b.endpoints)+len(b.raw[xds.Route])+len(b.raw[xds.Endpoints]) != 0 {
		t.Fatalf("something stayed: %+v", c)
	}
}

// What the control plane says does not exist is not waited for; what it has not spoken of is.
func TestReadyWithoutWhatDoesNotExist(t *testing.T) {
	b := New()
	mustApply(t, b, one(t, xds.Cluster, "c", edsCluster(t, "c")))
	mustApply(t, b, one(t, xds.Listener, "l", httpListener(t, "l", "outbound")))
	mustApply(t, b, config.Update{Type: xds.Endpoints, Removed: []string{"c"}})
	if b.Latest().Ready {
		t.Error("ready without routes")
	}
	if c := mustApply(t, b, config.Update{Type: xds.Route, Removed: []string{"outbound"}}); !c.Ready || c.Clusters["c"].Endpoints == nil || c.Routes["outbound"] == nil {
		t.Errorf("not ready though nothing is to come: %+v", c)
	}
	mustApply(t, b, one(t, xds.Endpoints, "c", assignment("c", "10.0.0.1")))
	c := mustApply(t, b, one(t, xds.Route, "outbound", routes("outbound", "c")))
	if len(c.Clusters["c"].Endpoints.Localities) != 1 || len(c.Routes["outbound"].VirtualHosts) != 1 {
		t.Errorf("what came after all was not taken: %+v", c)
	}
	mustApply(t, b, config.Update{Type: xds.Listener, Removed: []string{"l"}})
	if c := mustApply(t, b, config.Update{Type: xds.Route, Removed: []string{"other"}}); len(c.Routes) != 0 {
		t.Errorf("routes of nobody: %v", c.Routes)
	}
}

func TestChecksOfTheProxy(t *testing.T) {
	b, refused := New(), errors.New("not for me")
	good := mustApply(t, b, one(t, xds.Cluster, "c", edsCluster(t, "c")))
	listening := mustApply(t, b, one(t, xds.Listener, "eastwest", gatewayListener(t)))
	b.CheckCluster = func(s *config.Settings) error { return refused }
	b.CheckListener = func(l *config.Listener) error { return refused }
	cluster, listener := edsCluster(t, "c"), gatewayListener(t)
	cluster.LbPolicy, listener.Address.GetSocketAddress().Address = clusterv3.Cluster_RANDOM, "127.0.0.2"
	for _, u := range []config.Update{one(t, xds.Cluster, "c", cluster), one(t, xds.Listener, "eastwest", listener)} {
		if _, err := b.Apply(u); !errors.Is(err, refused) {
			t.Errorf("%s: got %v", u.Type, err)
		}
	}
	if c := b.Latest(); c.Clusters["c"] != good.Clusters["c"] || c.Listeners["eastwest"] != listening.Listeners["eastwest"] {
		t.Error("the last good version did not stay")
	}
}

func TestOneBadResourceDoesNotHoldUpTheRest(t *testing.T) {
	b := New()
	good := mustApply(t, b, one(t, xds.Cluster, "bad", edsCluster(t, "bad")))
	bad := edsCluster(t, "bad")
	bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	u := one(t, xds.Cluster, "bad", bad)
	u.Upserts = append(u.Upserts, config.Resource{Name: "good", Body: body(t, edsCluster(t, "good"))})
	c, err := b.Apply(u)
	if err == nil || !strings.Contains(err.Error(), `Cluster "bad": field "lb_policy"`) {
		t.Fatalf("error is %v", err)
	}
	if c.Clusters["bad"] != good.Clusters["bad"] || c.Clusters["good"] == nil {
		t.Fatal("last good did not stay, or the good one did not come")
	}
}

func TestDecoded(t *testing.T) {
	b := New()
	mustApply(t, b, one(t, xds.Cluster, "c", edsCluster(t, "c")))
	mustApply(t, b, one(t, xds.Endpoints, "c", assignment("c", "10.0.0.1")))
	mustApply(t, b, one(t, xds.Listener, "eastwest", gatewayListener(t)))
	mustApply(t, b, one(t, xds.Listener, "l", httpListener(t, "l", "outbound")))
	c := mustApply(t, b, one(t, xds.Route, "outbound", routes("outbound", "c", "d")))
	s := c.Clusters["c"].Settings
	if s.TLS.SNI != "outbound_.80_._.c" || s.TLS.SANs[0] != "spiffe://eu-west.mesh/ns/shop/sa/catalog" || s.TLS.ALPN[0] != "periplus-http/1.1" {
		t.Errorf("TLS %+v", s.TLS)
	}
	if s.Balance.PanicPercent != 0 || !s.Balance.LocalityWeighted || s.Balance.Policy != config.LeastRequest {
		t.Errorf("balance %+v", s.Balance)
	}
	if s.Outlier.Consecutive5xx != 7 || s.Outlier.MaxEjectionPercent != 10 || s.Outlier.Interval != 10*time.Second || s.Outlier.MaxEjection != 300*time.Second {
		t.Errorf("outlier %+v", s.Outlier)
	}
	if s.Breakers[0] != (config.Breaker{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}) {
		t.Errorf("breaker %+v", s.Breakers[0])
	}
	e := c.Clusters["c"].Endpoints.Localities[0].Endpoints[0]
	if e.Address.String() != "10.0.0.1:8080" || e.Weight != 2 || e.Cluster != "eu-west" || !e.Gateway {
		t.Errorf("endpoint %+v", e)
	}
	if chain := c.Listeners["eastwest"].Chains[0]; !chain.SNICluster || !c.Listeners["eastwest"].TLSInspector || chain.TLS != nil {
		t.Errorf("gateway chain %+v", chain)
	}
	h := c.Listeners["l"].Chains[0].HTTP
	if h.RouteName != "outbound" || h.RBAC[0].Action != config.RBACDeny || h.RBAC[0].Policies[0].Principals[0].Kind != config.Not || h.MaxHeaderKiB != 60 {
		t.Errorf("http %+v", h)
	}
	host := c.RoutesOf(h).VirtualHosts[0]
	f := host.Routes[0].Forward
	if host.Domains[0] != "catalog.shop" || f.Timeout != 0 || f.TotalWeight != 100 || f.Retry.On != config.RetryConnectFailure|config.RetryCodes || f.Retry.Codes[0] != 503 {
		t.Errorf("route %+v %+v", host, f)
	}
	if ops := host.Routes[0].Headers.Request; len(ops) != 2 || ops[0] != (config.HeaderOp{Name: "x-a", Value: "100%"}) || ops[1] != (config.HeaderOp{Name: "x-kept"}) {
		t.Errorf("headers %+v", ops)
	}
	fraction := edsCluster(t, "c")
	fraction.CommonLbConfig.HealthyPanicThreshold.Value = 49.6
	if c := mustApply(t, b, one(t, xds.Cluster, "c", fraction)); c.Clusters["c"].Settings.Balance.PanicPercent != 50 {
		t.Errorf("panic below %v%%", c.Clusters["c"].Settings.Balance.PanicPercent)
	}
}

func TestRefused(t *testing.T) {
	trusting, hcm := httpListener(t, "l", "r"), new(hcmv3.HttpConnectionManager)
	if err := trusting.FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(hcm); err != nil {
		t.Fatal(err)
	}
	hcm.UseRemoteAddress = wrapperspb.Bool(true)
	trusting.FilterChains[0].Filters[0] = filter(t, "hcm", hcm)
	cluster := func(change func(*clusterv3.Cluster)) config.Update {
		c := edsCluster(t, "x")
		change(c)
		return one(t, xds.Cluster, "x", c)
	}
	route := func(change func(*routev3.RouteConfiguration)) config.Update {
		r := routes("x", "c")
		change(r)
		return one(t, xds.Route, "x", r)
	}
	listener := func(change func(*listenerv3.Listener)) config.Update {
		l := gatewayListener(t)
		l.Name = "x"
		change(l)
		return one(t, xds.Listener, "x", l)
	}
	endpoints := func(change func(*endpointv3.ClusterLoadAssignment)) config.Update {
		e := assignment("x", "10.0.0.1")
		change(e)
		return one(t, xds.Endpoints, "x", e)
	}
	privateKey := packed(t, &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{{}}}})
	maglev := &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: wrapperspb.UInt64(11)}}
	slow := &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: &clusterv3.Cluster_SlowStartConfig{}}}
	choices := &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{ChoiceCount: wrapperspb.UInt32(5)}}
	byHostname := &clusterv3.Cluster_CommonLbConfig_ConsistentHashingLbConfig{UseHostnameForHashing: true}
	tcpCheck := &corev3.HealthCheck{HealthChecker: &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}}
	for name, test := range map[string]struct {
		update config.Update
		want   string
	}{
		"type":  {config.Update{Type: "x"}, "not supported"},
		"bytes": {config.Update{Type: xds.Cluster, Upserts: []config.Resource{{Name: "x", Body: []byte{0xff}}}}, "cannot be decoded"},
		"name":  {one(t, xds.Cluster, "y", edsCluster(t, "x")), `calls itself "x"`},
		"private key": {cluster(func(c *clusterv3.Cluster) {
			c.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: privateKey}
		}), "tls_certificates"},
		"subset":       {cluster(func(c *clusterv3.Cluster) { c.LbSubsetConfig = &clusterv3.Cluster_LbSubsetConfig{} }), "lb_subset_config"},
		"duration":     {cluster(func(c *clusterv3.Cluster) { c.ConnectTimeout = &durationpb.Duration{Seconds: -1} }), "connect_timeout"},
		"domain twice": {route(func(r *routev3.RouteConfiguration) { r.VirtualHosts = append(r.VirtualHosts, r.VirtualHosts[0]) }), `virtual_hosts[1].domains`},
		"no weight": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].GetRoute().GetWeightedClusters().Clusters[0].Weight = nil
		}), "weights sum to 0"},
		"mirror": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].GetRoute().RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{}}
		}), "request_mirror_policies"},
		"regex": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}
		}), "safe_regex"},
		"framing header": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].RequestHeadersToRemove = []string{"Transfer-Encoding"}
		}), "cannot be removed"},
		"injection": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].RequestHeadersToAdd[0].Header.Value = "a\r\nb: c"
		}), "cannot be set"},
		"maglev size":        {cluster(func(c *clusterv3.Cluster) { c.LbConfig = maglev }), "maglev_lb_config.table_size"},
		"slow start":         {cluster(func(c *clusterv3.Cluster) { c.LbConfig = slow }), "least_request_lb_config.slow_start_config"},
		"choices":            {cluster(func(c *clusterv3.Cluster) { c.LbConfig = choices }), "choice_count"},
		"hash by name":       {cluster(func(c *clusterv3.Cluster) { c.CommonLbConfig.ConsistentHashingLbConfig = byHostname }), "consistent_hashing_lb_config"},
		"success rate":       {cluster(func(c *clusterv3.Cluster) { c.OutlierDetection.EnforcingSuccessRate = wrapperspb.UInt32(100) }), "enforcing_success_rate"},
		"failure percentage": {cluster(func(c *clusterv3.Cluster) { c.OutlierDetection.EnforcingFailurePercentage = wrapperspb.UInt32(1) }), "enforcing_failure_percentage"},
		"ejection percent":   {cluster(func(c *clusterv3.Cluster) { c.OutlierDetection.MaxEjectionPercent = wrapperspb.UInt32(101) }), "max_ejection_percent"},
		"two health checks":  {cluster(func(c *clusterv3.Cluster) { c.HealthChecks = []*corev3.HealthCheck{tcpCheck, tcpCheck} }), "health_checks"},
		"jitter in percent":  {cluster(func(c *clusterv3.Cluster) { c.HealthChecks = []*corev3.HealthCheck{{IntervalJitterPercent: 5}} }), "interval_jitter_percent"},
		"close when unwell":  {cluster(func(c *clusterv3.Cluster) { c.CloseConnectionsOnHostHealthFailure = true }), "close_connections_on_host_health_failure"},
		"stale endpoints": {endpoints(func(e *endpointv3.ClusterLoadAssignment) {
			e.Policy = &endpointv3.ClusterLoadAssignment_Policy{EndpointStaleAfter: durationpb.New(time.Second)}
		}), "endpoint_stale_after"},
		"destination": {listener(func(l *listenerv3.Listener) {
			l.FilterChains[0].FilterChainMatch.PrefixRanges = []*corev3.CidrRange{{AddressPrefix: "10.0.0.0"}}
		}), "prefix_ranges"},
		"connection's life": {listener(func(l *listenerv3.Listener) {
			l.FilterChains[0].Filters[1] = filter(t, "tcp", &tcpv3.TcpProxy{ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: "x"}, MaxDownstreamConnectionDuration: durationpb.New(time.Hour)})
		}), "max_downstream_connection_duration"},
		"rule that never matches": {listener(func(l *listenerv3.Listener) {
			l.FilterChains[0].Filters[0] = filter(t, "rbac", &rbacnetwork.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{"p": {
				Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}}}}}})
		}), "permissions"},
		"websocket off": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].GetRoute().UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "websocket", Enabled: wrapperspb.Bool(false)}}
		}), "upgrade_configs"},
		"priority": {route(func(r *routev3.RouteConfiguration) {
			r.VirtualHosts[0].Routes[0].GetRoute().Priority = corev3.RoutingPriority_HIGH
		}), "priority"},
		"remote address": {one(t, xds.Listener, "l", trusting), "use_remote_address"},
		"filter":         {listener(func(l *listenerv3.Listener) { l.FilterChains[0].Filters[0] = filter(t, "x", &typev3.Percent{}) }), `filter_chains[0].filters[0].typed_config`},
		"no chain":       {listener(func(l *listenerv3.Listener) { l.FilterChains = nil }), "filter_chains"},
		"same":           {listener(func(l *listenerv3.Listener) { l.FilterChains = append(l.FilterChains, l.FilterChains[0]) }), "same as"},
		"port":           {listener(func(l *listenerv3.Listener) { l.Address = address("127.0.0.1", 70000) }), "70000"},
		"gap":            {endpoints(func(e *endpointv3.ClusterLoadAssignment) { e.Endpoints[0].Priority = 1 }), "priority 1 is used"},
		"host name": {endpoints(func(e *endpointv3.ClusterLoadAssignment) {
			e.Endpoints[0].LbEndpoints[0].GetEndpoint().Address = address("example.com", 80)
		}), "not an IP address"},
		"zero address": {endpoints(func(e *endpointv3.ClusterLoadAssignment) {
			e.Endpoints[0].LbEndpoints[0].GetEndpoint().Address = address("0.0.0.0", 80)
		}), "cannot be an endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New().Apply(test.update)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

// A config reached by any sequence of good updates equals one made from its resources in one go.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(rt *rapid.T) {
		b := New()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			u := drawUpdate(t, rt, names)
			if _, err := b.Apply(u); err != nil {
				rt.Fatal(err)
			}
		}
		again := New()
		for _, typ := range types {
			if b.answered[typ] {
				mustApply(t, again, config.Update{Type: typ, Upserts: b.Resources(typ), Removed: slices.Collect(b.absent(typ))})
			}
		}
		if !reflect.DeepEqual(b.Latest(), again.Latest()) {
			rt.Fatalf("incremental\n%+v\nfrom scratch\n%+v", b.Latest(), again.Latest())
		}
	})
}

// absent are the names of which is known that there is nothing.
func (b *Builder) absent(typ xds.Type) iter.Seq[string] {
	names := maps.Keys(b.latest.Routes)
	if typ == xds.Endpoints {
		names = maps.Keys(b.endpoints)
	}
	return func(yield func(string) bool) {
		for name := range names {
			if _, there := b.raw[typ][name]; !there && (typ == xds.Endpoints || typ == xds.Route) && !yield(name) {
				return
			}
		}
	}
}

func drawUpdate(t *testing.T, rt *rapid.T, names []string) config.Update {
	u := config.Update{Type: rapid.SampledFrom(types[:]).Draw(rt, "type")}
	for _, name := range names {
		switch rapid.IntRange(0, 3).Draw(rt, "action") {
		case 0:
			u.Removed = append(u.Removed, name)
		case 1:
			variant := rapid.SampledFrom(names).Draw(rt, "variant")
			u.Upserts = append(u.Upserts, config.Resource{Name: name, Body: body(t, drawn(t, u.Type, name, variant))})
		}
	}
	return u
}

func drawn(t *testing.T, typ xds.Type, name, variant string) proto.Message {
	switch typ {
	case xds.Cluster:
		c := edsCluster(t, name)
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{ServiceName: variant}
		if variant == "c" {
			c.ClusterDiscoveryType, c.EdsClusterConfig = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil
			c.LoadAssignment = assignment(name, "127.0.0.1")
		}
		return c
	case xds.Endpoints:
		return assignment(name, "10.0.0."+map[string]string{"a": "1", "b": "2", "c": "3"}[variant])
	case xds.Listener:
		return httpListener(t, name, variant)
	}
	return routes(name, variant)
}
