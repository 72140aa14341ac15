package catalog_test

import (
	"fmt"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// In any mesh, a gRPC client finds nothing that it would reject (gRFC A27, A29, A37, A44, A52).
func TestGRPCAcceptsWhatItGets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := new(mesh.Store)
		s := store.Update(translatetest.Start(t))
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			s = store.Update(translatetest.Delta(t))
		}
		v := translatetest.View(t, translatetest.AnyCluster(t))
		v.Workload, v.Role = "{}", rapid.SampledFrom([]translate.Role{translate.GRPC, translate.GRPCDirect}).Draw(t, "role of the client")
		c := catalog.Of(v)
		for _, kind := range types {
			for name := range c.Names(s, kind) {
				resource, _ := c.Get(s, kind, name)
				if err := rejected(kind, resource, v.Role); err != nil {
					t.Fatalf("%s %q: %v", kind, name, err)
				}
			}
		}
	})
}

func rejected(kind xds.Type, resource xds.Resource, role translate.Role) error {
	wrapped := new(anypb.Any)
	if err := proto.Unmarshal(resource.Any, wrapped); err != nil {
		return err
	}
	message, err := wrapped.UnmarshalNew()
	if err != nil {
		return err
	}
	switch m := message.(type) {
	case *clusterv3.Cluster:
		return rejectedCluster(m)
	case *endpointv3.ClusterLoadAssignment:
		return rejectedEndpoints(m, role)
	case *routev3.RouteConfiguration:
		return rejectedRoutes(m)
	}
	return nil
}

func rejectedCluster(c *clusterv3.Cluster) error {
	socket := c.GetTransportSocket().GetTypedConfig()
	if socket == nil {
		return nil
	}
	tls := new(tlsv3.UpstreamTlsContext)
	if err := socket.UnmarshalTo(tls); err != nil {
		return err
	}
	common := tls.GetCommonTlsContext()
	switch {
	case common.GetTlsParams() != nil, len(common.GetTlsCertificateSdsSecretConfigs()) > 0:
		return fmt.Errorf("TLS parameters or SDS: %v", common)
	case len(common.GetValidationContext().GetMatchSubjectAltNames()) == 0:
		return fmt.Errorf("any server will do: %v", common)
	}
	return nil
}

func rejectedEndpoints(a *endpointv3.ClusterLoadAssignment, role translate.Role) error {
	addresses, places, next := map[string]bool{}, map[string]bool{}, uint32(0)
	for i, group := range a.GetEndpoints() {
		place := fmt.Sprint(group.GetPriority(), group.GetLocality())
		switch {
		case i == 0 && group.GetPriority() != 0, group.GetPriority() > next:
			return fmt.Errorf("priority %d follows %d", group.GetPriority(), next)
		case places[place]:
			return fmt.Errorf("locality %s twice", place)
		case group.GetLoadBalancingWeight().GetValue() == 0, len(group.GetLbEndpoints()) == 0:
			return fmt.Errorf("locality without weight or endpoints: %v", group)
		}
		places[place], next = true, group.GetPriority()+1
		for _, e := range group.GetLbEndpoints() {
			address := e.GetEndpoint().GetAddress().String()
			if addresses[address] || e.GetLoadBalancingWeight().GetValue() == 0 {
				return fmt.Errorf("address twice, or without weight: %v", e)
			}
			addresses[address] = true
			if role == translate.GRPCDirect && e.GetMetadata().GetFilterMetadata()["periplus"].GetFields()["gateway"].GetBoolValue() {
				return fmt.Errorf("a gateway that the client cannot pass: %v", e)
			}
		}
	}
	return nil
}

func rejectedRoutes(c *routev3.RouteConfiguration) error {
	for _, route := range c.GetVirtualHosts()[0].GetRoutes() {
		action := route.GetRoute()
		if retry := action.GetRetryPolicy(); retry != nil && retry.GetNumRetries().GetValue() == 0 {
			return fmt.Errorf("retries without number: %v", route)
		}
		if action.GetCluster() == "" && len(action.GetWeightedClusters().GetClusters()) == 0 {
			return fmt.Errorf("a way to nowhere: %v", route)
		}
	}
	return nil
}

// A gRPC library says who it is by itself; what the bootstrap adds is whether it sends server names. Certificates
// decide first: a gateway stays one.
func TestWhoIsAGRPCClient(t *testing.T) {
	c := &mesh.Cluster{ID: "a", Region: "eu", TrustDomain: translatetest.Domain("a"), Networks: []mesh.NetworkRange{{Name: "n1"}}}
	workload, err := mesh.WorkloadIdentity{TrustDomain: c.TrustDomain, Namespace: "shop", Account: "web"}.ID()
	if err != nil {
		t.Fatal(err)
	}
	sends, _ := structpb.NewStruct(map[string]any{translate.ServerNameKey: true})
	for _, test := range []struct {
		node *corev3.Node
		want translate.Role
	}{
		{&corev3.Node{Id: "sidecar~a~web-1", UserAgentName: "envoy"}, translate.Sidecar},
		{&corev3.Node{Id: "web-1", UserAgentName: "gRPC Go"}, translate.GRPCDirect},
		{&corev3.Node{Id: "grpc~a~web-1"}, translate.GRPCDirect},
		{&corev3.Node{Id: "web-1", UserAgentName: "gRPC Java", Metadata: sends}, translate.GRPC},
		{&corev3.Node{Id: "sidecar~a~web-1", Metadata: sends}, translate.Sidecar},
	} {
		v, err := translate.ViewFor(c, workload, test.node)
		if err != nil || v.Role != test.want {
			t.Errorf("%v: role %q, want %q (%v)", test.node, v.Role, test.want, err)
		}
	}
	if v, err := translate.ViewFor(c, mesh.GatewayIdentity(c.TrustDomain), &corev3.Node{UserAgentName: "gRPC Go"}); err != nil || v.Role != translate.Gateway {
		t.Errorf("gateway: %q, %v", v.Role, err)
	}
}
