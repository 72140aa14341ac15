package envoy

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy/rbac"
)

// HTTPListener and GatewayListener are listeners that a workload has at most once.
const (
	HTTPListener    = "outbound_http"
	GatewayListener = "eastwest"
)

// Names of other listeners, and of filters.
const (
	tcpListenerStart = "outbound_tcp_"

	hcmFilter        = "envoy.filters.network.http_connection_manager"
	tcpProxyFilter   = "envoy.filters.network.tcp_proxy"
	sniClusterFilter = "envoy.filters.network.sni_cluster"
	routerFilter     = "envoy.filters.http.router"
	inspectorFilter  = "envoy.filters.listener.tls_inspector"
	// blackHole is a cluster that does not exist: where a connection goes that sni_cluster does not route.
	blackHole = "BlackHoleCluster"
)

// TCPListener is the name of the listener for a port number.
func TCPListener(port uint16) string { return tcpListenerStart + portText(port) }

// ParseTCPListener is the inverse of [TCPListener].
func ParseTCPListener(name string) (uint16, bool) {
	text, ok := strings.CutPrefix(name, tcpListenerStart)
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), ok && err == nil && TCPListener(uint16(port)) == name
}

// InboundListener is the name of the listener for a port of the workload.
func InboundListener(in translate.Inbound) string {
	return "inbound_" + in.PortName + "_" + portText(in.EndpointPort)
}

// InboundName is the name of the Envoy cluster that leads to the application behind a sidecar's port.
func InboundName(endpointPort uint16) string {
	return "inbound|" + portText(endpointPort) + "||"
}

// OutboundHTTP takes requests by authority.
func OutboundHTTP(w translate.Workload) *listenerv3.Listener {
	manager := httpManager(HTTPListener)
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: RouteName, ConfigSource: fromADS(),
	}}
	return listener(HTTPListener, w.Bind, w.OutboundPort, corev3.TrafficDirection_OUTBOUND,
		&listenerv3.FilterChain{Filters: []*listenerv3.Filter{networkFilter(hcmFilter, manager)}})
}

// OutboundTCP takes the connections to one port number.
func OutboundTCP(bind string, port uint16, r translate.Request) *listenerv3.Listener {
	name := TCPListener(port)
	return listener(name, bind, port, corev3.TrafficDirection_OUTBOUND,
		&listenerv3.FilterChain{Filters: []*listenerv3.Filter{tcpProxy(name, r.OutboundName())}})
}

// Eastwest routes by SNI and terminates nothing.
func Eastwest(w translate.Workload) *listenerv3.Listener {
	l := listener(GatewayListener, w.Bind, w.GatewayPort, corev3.TrafficDirection_UNSPECIFIED,
		&listenerv3.FilterChain{Filters: []*listenerv3.Filter{
			networkFilter(sniClusterFilter, &sniv3.SniCluster{}),
			tcpProxy(GatewayListener, blackHole),
		}})
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       inspectorFilter,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&inspectorv3.TlsInspector{})},
	}}
	return l
}

// Inbound terminates mutual TLS, authorises and leads to the application.
func Inbound(s *mesh.Snapshot, v translate.View, w translate.Workload, in translate.Inbound) *listenerv3.Listener {
	name, cluster := InboundListener(in), InboundName(in.EndpointPort)
	chain := &listenerv3.FilterChain{TransportSocket: downstreamTLS(in.Protocol)}
	rules := rbac.Of(s, v, w.Labels, in.Protocol == mesh.TCP)
	if in.Protocol == mesh.TCP {
		chain.Filters = append(networkAuthorization(rules, name), tcpProxy(name, cluster))
	} else {
		manager := httpManager(name)
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: inboundRoutes(cluster)}
		// An escaped slash means one thing to a rule and may mean another to the application.
		manager.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_REJECT_REQUEST
		// The application learns who asks from this proxy's own handshake, never from what the request says.
		manager.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		manager.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
		manager.HttpFilters = append(httpAuthorization(rules), manager.HttpFilters...)
		chain.Filters = []*listenerv3.Filter{networkFilter(hcmFilter, manager)}
	}
	return listener(name, w.Bind, in.EndpointPort, corev3.TrafficDirection_INBOUND, chain)
}

func inboundRoutes(cluster string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: "inbound", VirtualHosts: []*routev3.VirtualHost{{
		Name: "inbound", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match: anyPath(),
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				Timeout:          durationpb.New(0), // the client's sidecar has the timeouts
			}},
		}},
	}}}
}

// httpManager normalises paths before anything looks at them, so that a rule and the application see the same.
func httpManager(prefix string) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix:                   prefix,
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		// Without it Envoy refuses a websocket with 403.
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: routerFilter, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
		}},
	}
}

func listener(name, bind string, port uint16, d corev3.TrafficDirection, chain *listenerv3.FilterChain) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: name, Address: socketAddress(bind, port), TrafficDirection: d,
		FilterChains: []*listenerv3.FilterChain{chain},
	}
}

func tcpProxy(prefix, cluster string) *listenerv3.Filter {
	return networkFilter(tcpProxyFilter, &tcpv3.TcpProxy{
		StatPrefix: prefix, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster},
	})
}

func networkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(config)}}
}
