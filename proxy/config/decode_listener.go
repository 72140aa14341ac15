package config

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
)

var directions = map[corev3.TrafficDirection]Direction{
	corev3.TrafficDirection_INBOUND: Inbound, corev3.TrafficDirection_OUTBOUND: Outbound,
}

func decodeListener(p problems, pb *listenerv3.Listener) *Listener {
	p.unsupported("additional_addresses", len(pb.GetAdditionalAddresses()) > 0)
	p.unsupported("use_original_dst", pb.GetUseOriginalDst().GetValue())
	p.unsupported("udp_listener_config", pb.GetUdpListenerConfig() != nil)
	p.unsupported("api_listener", pb.GetApiListener() != nil)
	p.unsupported("filter_chain_matcher", pb.GetFilterChainMatcher() != nil)
	p.unsupported("internal_listener", pb.GetInternalListener() != nil)
	p.unsupported("bind_to_port", !boolean(pb.GetBindToPort(), true))
	p.unsupported("transparent", pb.GetTransparent().GetValue())
	p.unsupported("socket_options", len(pb.GetSocketOptions()) > 0)
	l := &Listener{
		Name: pb.GetName(), Direction: directions[pb.GetTrafficDirection()],
		Address:          listenAddress(p.in("address.socket_address"), pb.GetAddress().GetSocketAddress()),
		InspectorTimeout: p.positive("listener_filters_timeout", pb.GetListenerFiltersTimeout(), 10*time.Second),
	}
	l.listenerFilters(p, pb.GetListenerFilters())
	p.limit("filter_chains", len(pb.GetFilterChains()), maxChains)
	for i, chain := range pb.GetFilterChains() {
		l.addChain(p.at("filter_chains", i), chain)
	}
	if pb.GetDefaultFilterChain() != nil {
		l.Default = decodeChain(p.in("default_filter_chain"), pb.GetDefaultFilterChain())
	}
	if len(l.Chains) == 0 && l.Default == nil {
		p.refuse("filter_chains", "is empty")
	}
	return l
}

func (l *Listener) addChain(p problems, pb *listenerv3.FilterChain) {
	chain := decodeChain(p, pb)
	for _, earlier := range l.Chains {
		if earlier.Match.equal(&chain.Match) {
			p.refuse("filter_chain_match", "is the same as that of an earlier chain")
		}
	}
	l.TLSInspector = l.TLSInspector || len(chain.Match.ServerNames) > 0 || chain.Match.Transport == "tls" || len(chain.Match.ALPN) > 0
	l.Chains = append(l.Chains, chain)
}

func (m *ChainMatch) equal(o *ChainMatch) bool {
	return m.Port == o.Port && m.Transport == o.Transport && slices.Equal(m.ServerNames, o.ServerNames) &&
		slices.Equal(m.ALPN, o.ALPN)
}

func listenAddress(p problems, pb *corev3.SocketAddress) netip.AddrPort {
	ip, err := netip.ParseAddr(pb.GetAddress())
	switch {
	case pb == nil:
		p.refuse("socket_address", "is missing; other kinds are not supported")
	case pb.GetProtocol() != corev3.SocketAddress_TCP:
		p.refuse("protocol", "%v is not supported", pb.GetProtocol())
	case err != nil:
		p.refuse("address", "%q is not an IP address", pb.GetAddress())
	default:
		return netip.AddrPortFrom(ip, p.port("port_value", pb.GetPortValue()))
	}
	return netip.AddrPort{}
}

// listenerFilters: inspection is what the listener does by itself where it must; the HTTP inspector's work is the
// codec's.
func (l *Listener) listenerFilters(p problems, filters []*listenerv3.ListenerFilter) {
	for i, filter := range filters {
		switch kind := typeOf(filter.GetTypedConfig()); kind {
		case "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":
			l.TLSInspector = p.unpack("tls_inspector", filter.GetTypedConfig(), new(tlsinspector.TlsInspector))
		case "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector":
			p.unpack("http_inspector", filter.GetTypedConfig(), new(httpinspector.HttpInspector))
		default:
			p.at("listener_filters", i).refuse("typed_config", "%q is not supported", kind)
		}
	}
}

func typeOf(packed *anypb.Any) string {
	return string(packed.MessageName())
}

func decodeChain(p problems, pb *listenerv3.FilterChain) *FilterChain {
	p.unsupported("use_proxy_proto", pb.GetUseProxyProto().GetValue())
	c := &FilterChain{
		Name: pb.GetName(), Match: decodeChainMatch(p.in("filter_chain_match"), pb.GetFilterChainMatch()),
		TLS: decodeDownstreamSocket(p.in("transport_socket"), pb.GetTransportSocket()),
	}
	p.limit("filters", len(pb.GetFilters()), maxFilters)
	for i, filter := range pb.GetFilters() {
		if c.HTTP != nil || c.TCP != nil {
			p.at("filters", i).refuse("typed_config", "comes after the last filter of the chain")
		}
		c.filter(p.at("filters", i).in("typed_config"), filter.GetTypedConfig())
	}
	if c.HTTP == nil && c.TCP == nil {
		p.refuse("filters", "must end with an HTTP connection manager or tcp_proxy")
	}
	if c.TCP != nil && !c.SNICluster && len(c.TCP.Clusters) == 0 {
		p.refuse("filters", "tcp_proxy has no cluster")
	}
	return c
}

func (c *FilterChain) filter(p problems, packed *anypb.Any) {
	switch kind := typeOf(packed); kind {
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
		c.HTTP = decodeHTTP(p, packed)
	case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
		c.TCP = decodeTCP(p, packed)
	case "envoy.extensions.filters.network.rbac.v3.RBAC":
		filter := new(rbacv3.RBAC)
		if p.unpack("rbac", packed, filter) {
			p.unsupported("matcher", filter.GetMatcher() != nil || filter.GetShadowMatcher() != nil)
			c.RBAC = append(c.RBAC, decodeRBAC(p, filter.GetRules(), filter.GetShadowRules())...)
		}
	case "envoy.extensions.filters.network.sni_cluster.v3.SniCluster":
		c.SNICluster = p.unpack("sni_cluster", packed, new(snicluster.SniCluster))
	default:
		p.refuse("type_url", "%q is not supported", kind)
	}
}

func decodeChainMatch(p problems, pb *listenerv3.FilterChainMatch) ChainMatch {
	p.unsupported("source", len(pb.GetSourcePrefixRanges())+len(pb.GetSourcePorts())+len(pb.GetDirectSourcePrefixRanges()) > 0 ||
		pb.GetSourceType() != listenerv3.FilterChainMatch_ANY)
	p.unsupported("prefix_ranges", len(pb.GetPrefixRanges()) > 0 || pb.GetAddressSuffix() != "")
	m := ChainMatch{Transport: pb.GetTransportProtocol(), ALPN: slices.Clone(pb.GetApplicationProtocols())}
	if m.Transport != "" && m.Transport != "tls" && m.Transport != "raw_buffer" {
		p.refuse("transport_protocol", "%q is not known", m.Transport)
	}
	if pb.GetDestinationPort() != nil {
		m.Port = p.port("destination_port", pb.GetDestinationPort().GetValue())
	}
	for _, name := range pb.GetServerNames() {
		if name = strings.ToLower(name); name == "" || strings.Contains(strings.TrimPrefix(name, "*."), "*") {
			p.refuse("server_names", "%q is not a server name", name)
		}
		m.ServerNames = append(m.ServerNames, name)
	}
	return m
}

func decodeDownstreamSocket(p problems, pb *corev3.TransportSocket) *DownstreamTLS {
	context := new(tlsv3.DownstreamTlsContext)
	if plainText(p, pb) || !p.unpack("typed_config", pb.GetTypedConfig(), context) {
		return nil
	}
	tls := &DownstreamTLS{RequireClient: context.GetRequireClientCertificate().GetValue()}
	tls.ALPN, tls.SANs = decodeTLS(p.in("common_tls_context"), context.GetCommonTlsContext())
	return tls
}

func decodeTCP(p problems, packed *anypb.Any) *TCP {
	pb := new(tcpv3.TcpProxy)
	if !p.unpack("tcp_proxy", packed, pb) {
		return nil
	}
	p.unsupported("tunneling_config", pb.GetTunnelingConfig() != nil)
	p.unsupported("on_demand", pb.GetOnDemand() != nil)
	p.unsupported("metadata_match", pb.GetMetadataMatch() != nil)
	p.unsupported("max_downstream_connection_duration", pb.GetMaxDownstreamConnectionDuration().AsDuration() > 0)
	p.unsupported("hash_policy", len(pb.GetHashPolicy()) > 0)
	t := &TCP{
		IdleTimeout: p.duration("idle_timeout", pb.GetIdleTimeout(), time.Hour),
		MaxAttempts: atLeastOne(pb.GetMaxConnectAttempts(), 1),
	}
	if name := pb.GetCluster(); name != "" {
		t.Clusters, t.TotalWeight = []WeightedCluster{{Name: name, Weight: 1}}, 1
	}
	p.limit("weighted_clusters", len(pb.GetWeightedClusters().GetClusters()), maxClusters)
	for _, c := range pb.GetWeightedClusters().GetClusters() {
		if c.GetWeight() == 0 || c.GetName() == "" || c.GetMetadataMatch() != nil {
			p.refuse("weighted_clusters", "needs a name and a weight above 0, and no metadata_match")
		}
		t.TotalWeight += uint64(c.GetWeight())
		t.Clusters = append(t.Clusters, WeightedCluster{Name: c.GetName(), Weight: c.GetWeight()})
	}
	return t
}
