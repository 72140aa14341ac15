package main

import (
	"context"
	"errors"
	"iter"
	"maps"
	"net"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	snicluster "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/eastwest"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// runGateway is the real gateway, and beside it in the same process, idle after the start, the smallest control
// plane that it can follow.
func runGateway(ctx context.Context, listen, upstream string) error {
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	ca := trusttest.NewCA("bench.mesh")
	plane, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(append(ads.ServerOptions(), grpc.Creds(credentials.NewTLS(
		trust.ServerConfig(ca.Source("/periplus/agent", time.Hour), trust.AuthorizeAny))))...)
	defer server.Stop()
	adsserver.New(adsserver.Config[resources]{
		State: newState(resourcesOf(at, netip.MustParseAddrPort(upstream))),
		Authorize: func(context.Context, adsserver.Peer, *corev3.Node) (xds.Catalog[resources], error) {
			return catalog{}, nil
		},
	}).Register(server)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(plane) }()
	err = eastwest.Run(ctx, eastwest.Config{
		Name: "bench", Cluster: "bench", Bind: at.Addr(), Port: at.Port(), Network: "bench",
		Source: ca.Source("/periplus/gateway", time.Hour), Agent: plane.Addr().String(), DrainTime: 100 * time.Millisecond,
	})
	server.Stop()
	return errors.Join(err, <-failed)
}

// resources by type and name.
type resources map[xds.Type]map[string]xds.Resource

func resourcesOf(listen, upstream netip.AddrPort) resources {
	ads := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	cluster := &clusterv3.Cluster{
		Name: serverName, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}, LbPolicy: clusterv3.Cluster_LEAST_REQUEST,
	}
	endpoints := &endpointv3.ClusterLoadAssignment{ClusterName: serverName, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socketAddress(upstream)}}}}}}}
	listener := &listenerv3.Listener{Name: "eastwest", Address: socketAddress(listen), FilterChains: []*listenerv3.FilterChain{{
		FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls"},
		Filters: []*listenerv3.Filter{
			filter("envoy.filters.network.sni_cluster", &snicluster.SniCluster{}),
			filter("envoy.filters.network.tcp_proxy", &tcpproxy.TcpProxy{StatPrefix: "eastwest",
				ClusterSpecifier: &tcpproxy.TcpProxy_Cluster{Cluster: "BlackHoleCluster"}}),
		},
	}}}
	return resources{
		xds.Cluster:   {serverName: xds.NewResource(xds.Cluster, serverName, cluster)},
		xds.Endpoints: {serverName: xds.NewResource(xds.Endpoints, serverName, endpoints)},
		xds.Listener:  {"eastwest": xds.NewResource(xds.Listener, "eastwest", listener)},
	}
}

func filter(name string, m proto.Message) *listenerv3.Filter {
	packed, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}}
}

func socketAddress(at netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: at.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())}}}}
}

// state never changes.
type state struct {
	*watch.Value[resources]
	ready chan struct{}
}

func newState(r resources) state {
	s := state{watch.New(r), make(chan struct{})}
	close(s.ready)
	return s
}

func (s state) Latest() (resources, <-chan struct{}) { return s.Get() }
func (s state) Ready() <-chan struct{}               { return s.ready }

type catalog struct{}

func (catalog) Get(r resources, t xds.Type, name string) (xds.Resource, bool) {
	found, ok := r[t][name]
	return found, ok
}

func (catalog) Names(r resources, t xds.Type) iter.Seq[string] { return maps.Keys(r[t]) }

func (catalog) Changed(_, _ resources) iter.Seq2[xds.Type, string] {
	return func(func(xds.Type, string) bool) {}
}
