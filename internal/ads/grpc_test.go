package ads_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	pxds "github.com/periplus-mesh/periplus/internal/xds"
)

// TestGRPCClient: gRPC's own xDS client finds a service through the server, and follows it when it moves.
func TestGRPCClient(t *testing.T) {
	first, second := backend(t), backend(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	state := newStore(grpcWorld(t, first))
	plane := serveOn(listener, adsserver.Config[world]{State: state})
	defer plane.stop()
	bootstrap := fmt.Sprintf(`{"node": {"id": "grpc-client"}, "xds_servers": [{
		"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}]}`, listener.Addr())
	resolver, err := xds.NewXDSResolverWithConfigForTesting([]byte(bootstrap))
	must(t, err)
	conn, err := grpc.NewClient("xds:///catalog", grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	client := healthv1.NewHealthClient(conn)
	_, err = client.Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	must(t, err)

	state.value.Set(grpcWorld(t, second))
	deadline := time.Now().Add(10 * time.Second)
	for { // an ACK comes before the client uses what it acknowledged, so ask who answers
		var answered peer.Peer
		_, err = client.Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&answered))
		must(t, err)
		if uint32(answered.Addr.(*net.TCPAddr).Port) == second.port {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the first endpoint still answers: %+v", plane.server.Streams()[0].Types)
		}
		time.Sleep(5 * time.Millisecond)
	}
	first.server.Stop()
	_, err = client.Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	must(t, err)
}

type backendServer struct {
	server *grpc.Server
	port   uint32
}

func backend(t *testing.T) backendServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return backendServer{server, uint32(listener.Addr().(*net.TCPAddr).Port)}
}

func wrap(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	any, err := anypb.New(m)
	must(t, err)
	return any
}

// grpcWorld is a service "catalog" with one endpoint.
func grpcWorld(t *testing.T, b backendServer) world {
	ads := &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	hcm := wrap(t, &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "r", ConfigSource: ads}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: wrap(t, &routerv3.Router{})},
		}},
	})
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: b.port},
	}}}
	return world{}.
		with(pxds.Listener, "catalog", string(encode(t, &listenerv3.Listener{
			Name: "catalog", ApiListener: &listenerv3.ApiListener{ApiListener: hcm},
		}))).
		with(pxds.Route, "r", string(encode(t, &routev3.RouteConfiguration{
			Name: "r", VirtualHosts: []*routev3.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "catalog"},
				}},
			}}}},
		}))).
		with(pxds.Cluster, "catalog", string(encode(t, &clusterv3.Cluster{
			Name: "catalog", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads},
		}))).
		with(pxds.Endpoints, "catalog", string(encode(t, &endpointv3.ClusterLoadAssignment{
			ClusterName: "catalog", Endpoints: []*endpointv3.LocalityLbEndpoints{{
				Locality: &corev3.Locality{Region: "east"}, LoadBalancingWeight: wrapperspb.UInt32(1),
				LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
					Endpoint: &endpointv3.Endpoint{Address: address},
				}}},
			}},
		})))
}
