package translate

import (
	"cmp"
	"slices"
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
)

// Names of listeners and filters.
const (
	httpListener     = "outbound_http"
	gatewayListener  = "eastwest"
	tcpListenerStart = "outbound_tcp_"

	hcmFilter        = "envoy.filters.network.http_connection_manager"
	tcpProxyFilter   = "envoy.filters.network.tcp_proxy"
	sniClusterFilter = "envoy.filters.network.sni_cluster"
	routerFilter     = "envoy.filters.http.router"
	inspectorFilter  = "envoy.filters.listener.tls_inspector"
	// blackHole is a cluster that does not exist: where a connection goes that sni_cluster does not route.
	blackHole = "BlackHoleCluster"
)

func tcpListenerName(port uint16) string { return tcpListenerStart + portText(port) }

func (in *Inbound) listenerName() string {
	return "inbound_" + in.PortName + "_" + portText(in.EndpointPort)
}

func (c *catalog) listenerNames(s *mesh.Snapshot) []string {
	w := c.workload
	if c.view.Role == Gateway {
		if w.GatewayPort == 0 {
			return nil
		}
		return []string{gatewayListener}
	}
	var names []string
	if w.OutboundPort != 0 {
		names = append(names, httpListener)
	}
	for i := range w.Inbound {
		names = append(names, w.Inbound[i].listenerName())
	}
	if w.TCPOutbound {
		for _, port := range sortedPorts(c.shared.tcpServices(s)) {
			if !w.takes(port) {
				names = append(names, tcpListenerName(port))
			}
		}
	}
	return names
}

func sortedPorts(m map[uint16]Request) []uint16 {
	var ports []uint16
	for port := range m {
		ports = append(ports, port)
	}
	slices.SortFunc(ports, cmp.Compare)
	return ports
}

// takes tells whether the workload itself listens on a port.
func (w *Workload) takes(port uint16) bool {
	return port == w.OutboundPort || slices.ContainsFunc(w.Inbound, func(in Inbound) bool { return in.EndpointPort == port })
}

// listener finds who makes a listener; nil: it does not exist.
func (c *catalog) listener(s *mesh.Snapshot, name string) func() proto.Message {
	w := c.workload
	if c.view.Role == Gateway {
		if name == gatewayListener && w.GatewayPort != 0 {
			return func() proto.Message { return eastwestListener(w) }
		}
		return nil
	}
	if name == httpListener && w.OutboundPort != 0 {
		return func() proto.Message { return outboundHTTP(w) }
	}
	for i := range w.Inbound {
		if in := w.Inbound[i]; in.listenerName() == name {
			return func() proto.Message { return c.inboundListener(s, in) }
		}
	}
	if r, port, ok := c.tcpListener(s, name); ok {
		return func() proto.Message { return outboundTCP(w.Bind, port, r) }
	}
	return nil
}

func (c *catalog) tcpListener(s *mesh.Snapshot, name string) (Request, uint16, bool) {
	text, ok := strings.CutPrefix(name, tcpListenerStart)
	number, err := strconv.ParseUint(text, 10, 16)
	port := uint16(number)
	if !ok || err != nil || tcpListenerName(port) != name || !c.workload.TCPOutbound || c.workload.takes(port) {
		return Request{}, 0, false
	}
	r, ok := c.shared.tcpServices(s)[port]
	return r, port, ok
}

type tcpServicesKey struct{ view View }

// tcpServices says whose a TCP port number is: there is one listener a number, so the first service wins, those of
// the client's namespace before others.
func (v View) tcpServices(s *mesh.Snapshot) map[uint16]Request {
	key := tcpServicesKey{View{Cluster: v.Cluster, Namespace: v.Namespace, Role: v.Role}}
	return s.Memo(key, func() any {
		owners := map[uint16]Request{}
		for name := range s.ServiceNames() {
			for _, port := range v.tcpPorts(s, name) {
				have, taken := owners[port]
				if !taken || have.Service.Namespace != v.Namespace && name.Namespace == v.Namespace {
					owners[port] = Request{Service: name, Port: port}
				}
			}
		}
		return owners
	}).(map[uint16]Request)
}

func outboundHTTP(w Workload) *listenerv3.Listener {
	manager := httpManager(httpListener)
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: routeName, ConfigSource: fromADS(),
	}}
	return listener(httpListener, w.Bind, w.OutboundPort, corev3.TrafficDirection_OUTBOUND,
		&listenerv3.FilterChain{Filters: []*listenerv3.Filter{networkFilter(hcmFilter, manager)}})
}

func outboundTCP(bind string, port uint16, r Request) *listenerv3.Listener {
	name := tcpListenerName(port)
	return listener(name, bind, port, corev3.TrafficDirection_OUTBOUND,
		&listenerv3.FilterChain{Filters: []*listenerv3.Filter{tcpProxy(name, r.outboundName())}})
}

// eastwestListener routes by SNI and terminates nothing.
func eastwestListener(w Workload) *listenerv3.Listener {
	l := listener(gatewayListener, w.Bind, w.GatewayPort, corev3.TrafficDirection_UNSPECIFIED,
		&listenerv3.FilterChain{Filters: []*listenerv3.Filter{
			networkFilter(sniClusterFilter, &sniv3.SniCluster{}),
			tcpProxy(gatewayListener, blackHole),
		}})
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       inspectorFilter,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&inspectorv3.TlsInspector{})},
	}}
	return l
}

// inboundListener terminates mutual TLS, authorises and leads to the application.
func (c *catalog) inboundListener(s *mesh.Snapshot, in Inbound) *listenerv3.Listener {
	name, cluster := in.listenerName(), inboundName(in.EndpointPort)
	chain := &listenerv3.FilterChain{TransportSocket: downstreamTLS(in.Protocol)}
	rules := c.view.authorization(s, c.workload.Labels, in.Protocol == mesh.TCP)
	if in.Protocol == mesh.TCP {
		chain.Filters = append(rules.networkFilters(name), tcpProxy(name, cluster))
	} else {
		manager := httpManager(name)
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: inboundRoutes(cluster)}
		// An escaped slash means one thing to a rule and may mean another to the application.
		manager.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_REJECT_REQUEST
		manager.HttpFilters = append(rules.httpFilters(), manager.HttpFilters...)
		chain.Filters = []*listenerv3.Filter{networkFilter(hcmFilter, manager)}
	}
	return listener(name, c.workload.Bind, in.EndpointPort, corev3.TrafficDirection_INBOUND, chain)
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
