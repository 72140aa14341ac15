package downstream

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	tlsinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	snicluster "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

var directions = map[corev3.TrafficDirection]config.Direction{
	corev3.TrafficDirection_INBOUND: config.Inbound, corev3.TrafficDirection_OUTBOUND: config.Outbound,
}

// Listener decodes a listener; what p refuses makes it void.
func Listener(p field.Problems, pb *listenerv3.Listener) *config.Listener {
	p.Unsupported("additional_addresses", len(pb.GetAdditionalAddresses()) > 0)
	p.Unsupported("use_original_dst", pb.GetUseOriginalDst().GetValue())
	p.Unsupported("udp_listener_config", pb.GetUdpListenerConfig() != nil)
	p.Unsupported("api_listener", pb.GetApiListener() != nil)
	p.Unsupported("filter_chain_matcher", pb.GetFilterChainMatcher() != nil)
	p.Unsupported("internal_listener", pb.GetInternalListener() != nil)
	p.Unsupported("bind_to_port", !field.Boolean(pb.GetBindToPort(), true))
	p.Unsupported("transparent", pb.GetTransparent().GetValue())
	p.Unsupported("socket_options", len(pb.GetSocketOptions()) > 0)
	l := &config.Listener{
		Name: pb.GetName(), Direction: directions[pb.GetTrafficDirection()],
		Address:          listenAddress(p.In("address.socket_address"), pb.GetAddress().GetSocketAddress()),
		InspectorTimeout: p.Positive("listener_filters_timeout", pb.GetListenerFiltersTimeout(), 10*time.Second),
	}
	decodeListenerFilters(l, p, pb.GetListenerFilters())
	p.Limit("filter_chains", len(pb.GetFilterChains()), maxChains)
	for i, chain := range pb.GetFilterChains() {
		addChain(l, p.At("filter_chains", i), chain)
	}
	if pb.GetDefaultFilterChain() != nil {
		l.Default = decodeChain(p.In("default_filter_chain"), pb.GetDefaultFilterChain())
	}
	if len(l.Chains) == 0 && l.Default == nil {
		p.Refuse("filter_chains", "is empty")
	}
	return l
}

func addChain(l *config.Listener, p field.Problems, pb *listenerv3.FilterChain) {
	chain := decodeChain(p, pb)
	for _, earlier := range l.Chains {
		if sameMatch(&earlier.Match, &chain.Match) {
			p.Refuse("filter_chain_match", "is the same as that of an earlier chain")
		}
	}
	l.TLSInspector = l.TLSInspector || len(chain.Match.ServerNames) > 0 || chain.Match.Transport == "tls" || len(chain.Match.ALPN) > 0
	l.Chains = append(l.Chains, chain)
}

func sameMatch(m, o *config.ChainMatch) bool {
	return m.Port == o.Port && m.Transport == o.Transport && slices.Equal(m.ServerNames, o.ServerNames) &&
		slices.Equal(m.ALPN, o.ALPN)
}

func listenAddress(p field.Problems, pb *corev3.SocketAddress) netip.AddrPort {
	ip, err := netip.ParseAddr(pb.GetAddress())
	switch {
	case pb == nil:
		p.Refuse("socket_address", "is missing; other kinds are not supported")
	case pb.GetProtocol() != corev3.SocketAddress_TCP:
		p.Refuse("protocol", "%v is not supported", pb.GetProtocol())
	case err != nil:
		p.Refuse("address", "%q is not an IP address", pb.GetAddress())
	default:
		return netip.AddrPortFrom(ip, p.Port("port_value", pb.GetPortValue()))
	}
	return netip.AddrPort{}
}

// listenerFilters: inspection is what the listener does by itself where it must; the HTTP inspector's work is the
// codec's.
func decodeListenerFilters(l *config.Listener, p field.Problems, filters []*listenerv3.ListenerFilter) {
	for i, filter := range filters {
		switch kind := field.TypeOf(filter.GetTypedConfig()); kind {
		case "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":
			l.TLSInspector = p.Unpack("tls_inspector", filter.GetTypedConfig(), new(tlsinspector.TlsInspector))
		case "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector":
			p.Unpack("http_inspector", filter.GetTypedConfig(), new(httpinspector.HttpInspector))
		default:
			p.At("listener_filters", i).Refuse("typed_config", "%q is not supported", kind)
		}
	}
}

func decodeChain(p field.Problems, pb *listenerv3.FilterChain) *config.FilterChain {
	p.Unsupported("use_proxy_proto", pb.GetUseProxyProto().GetValue())
	c := &config.FilterChain{
		Name: pb.GetName(), Match: decodeChainMatch(p.In("filter_chain_match"), pb.GetFilterChainMatch()),
		TLS: decodeDownstreamSocket(p.In("transport_socket"), pb.GetTransportSocket()),
	}
	p.Limit("filters", len(pb.GetFilters()), maxFilters)
	for i, filter := range pb.GetFilters() {
		if c.HTTP != nil || c.TCP != nil {
			p.At("filters", i).Refuse("typed_config", "comes after the last filter of the chain")
		}
		decodeFilter(c, p.At("filters", i).In("typed_config"), filter.GetTypedConfig())
	}
	if c.HTTP == nil && c.TCP == nil {
		p.Refuse("filters", "must end with an HTTP connection manager or tcp_proxy")
	}
	if c.TCP != nil && !c.SNICluster && len(c.TCP.Clusters) == 0 {
		p.Refuse("filters", "tcp_proxy has no cluster")
	}
	return c
}

func decodeFilter(c *config.FilterChain, p field.Problems, packed *anypb.Any) {
	switch kind := field.TypeOf(packed); kind {
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
		c.HTTP = decodeHTTP(p, packed)
	case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
		c.TCP = decodeTCP(p, packed)
	case "envoy.extensions.filters.network.rbac.v3.RBAC":
		filter := new(rbacv3.RBAC)
		if p.Unpack("rbac", packed, filter) {
			p.Unsupported("matcher", filter.GetMatcher() != nil || filter.GetShadowMatcher() != nil)
			c.RBAC = append(c.RBAC, decodeRBAC(p, filter.GetRules(), filter.GetShadowRules())...)
		}
	case "envoy.extensions.filters.network.sni_cluster.v3.SniCluster":
		c.SNICluster = p.Unpack("sni_cluster", packed, new(snicluster.SniCluster))
	default:
		p.Refuse("type_url", "%q is not supported", kind)
	}
}

func decodeChainMatch(p field.Problems, pb *listenerv3.FilterChainMatch) config.ChainMatch {
	p.Unsupported("source", len(pb.GetSourcePrefixRanges())+len(pb.GetSourcePorts())+len(pb.GetDirectSourcePrefixRanges()) > 0 ||
		pb.GetSourceType() != listenerv3.FilterChainMatch_ANY)
	p.Unsupported("prefix_ranges", len(pb.GetPrefixRanges()) > 0 || pb.GetAddressSuffix() != "")
	m := config.ChainMatch{Transport: pb.GetTransportProtocol(), ALPN: slices.Clone(pb.GetApplicationProtocols())}
	if m.Transport != "" && m.Transport != "tls" && m.Transport != "raw_buffer" {
		p.Refuse("transport_protocol", "%q is not known", m.Transport)
	}
	if pb.GetDestinationPort() != nil {
		m.Port = p.Port("destination_port", pb.GetDestinationPort().GetValue())
	}
	for _, name := range pb.GetServerNames() {
		if name = strings.ToLower(name); name == "" || strings.Contains(strings.TrimPrefix(name, "*."), "*") {
			p.Refuse("server_names", "%q is not a server name", name)
		}
		m.ServerNames = append(m.ServerNames, name)
	}
	return m
}

func decodeDownstreamSocket(p field.Problems, pb *corev3.TransportSocket) *config.DownstreamTLS {
	context := new(tlsv3.DownstreamTlsContext)
	if field.PlainText(p, pb) || !p.Unpack("typed_config", pb.GetTypedConfig(), context) {
		return nil
	}
	tls := &config.DownstreamTLS{RequireClient: context.GetRequireClientCertificate().GetValue()}
	tls.ALPN, tls.SANs = field.TLS(p.In("common_tls_context"), context.GetCommonTlsContext())
	return tls
}

func decodeTCP(p field.Problems, packed *anypb.Any) *config.TCP {
	pb := new(tcpv3.TcpProxy)
	if !p.Unpack("tcp_proxy", packed, pb) {
		return nil
	}
	p.Unsupported("tunneling_config", pb.GetTunnelingConfig() != nil)
	p.Unsupported("on_demand", pb.GetOnDemand() != nil)
	p.Unsupported("metadata_match", pb.GetMetadataMatch() != nil)
	p.Unsupported("max_downstream_connection_duration", pb.GetMaxDownstreamConnectionDuration().AsDuration() > 0)
	p.Unsupported("hash_policy", len(pb.GetHashPolicy()) > 0)
	t := &config.TCP{
		IdleTimeout: p.Duration("idle_timeout", pb.GetIdleTimeout(), time.Hour),
		MaxAttempts: field.AtLeastOne(pb.GetMaxConnectAttempts(), 1),
	}
	if name := pb.GetCluster(); name != "" {
		t.Clusters, t.TotalWeight = []config.WeightedCluster{{Name: name, Weight: 1}}, 1
	}
	p.Limit("weighted_clusters", len(pb.GetWeightedClusters().GetClusters()), maxClusters)
	for _, c := range pb.GetWeightedClusters().GetClusters() {
		if c.GetWeight() == 0 || c.GetName() == "" || c.GetMetadataMatch() != nil {
			p.Refuse("weighted_clusters", "needs a name and a weight above 0, and no metadata_match")
		}
		t.TotalWeight += uint64(c.GetWeight())
		t.Clusters = append(t.Clusters, config.WeightedCluster{Name: c.GetName(), Weight: c.GetWeight()})
	}
	return t
}
