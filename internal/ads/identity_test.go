package ads_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// authority issues SVIDs for one trust domain.
type authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{sign(t, template, template, key, key), key}
}

func sign(t *testing.T, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	must(t, err)
	certificate, err := x509.ParseCertificate(der)
	must(t, err)
	return certificate
}

func (a *authority) source(t *testing.T, text string) trust.Source {
	t.Helper()
	id := spiffeid.RequireFromString(text)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id.URL()},
		KeyUsage: x509.KeyUsageDigitalSignature,
	}, a.root, key, a.key)
	return watch.New(&trust.Material{
		ID:          id,
		Certificate: &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		Bundles:     map[spiffeid.TrustDomain][]*x509.Certificate{id.TrustDomain(): {a.root}},
	})
}

// TestIdentity: the peer is who its certificate says, whatever its node says; a server that is not the one wanted is
// passed over.
func TestIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state, ca := new(memnet.Network), newStore(shop(1)), newAuthority(t)
		const agentID, proxyID = "spiffe://east.mesh/periplus/agent", "spiffe://east.mesh/ns/shop/sa/catalog"
		var seen watch.Value[adsserver.Peer]
		config := adsserver.Config[world]{
			State: state,
			Authorize: func(_ context.Context, p adsserver.Peer, _ *corev3.Node) (xds.Catalog[world], error) {
				seen.Set(p)
				if p.ID.String() != proxyID {
					return nil, errors.New("not a proxy of this cluster")
				}
				return catalog{}, nil
			},
		}
		tlsOf := func(id string) grpc.ServerOption {
			return grpc.Creds(credentials.NewTLS(trust.OptionalClientConfig(ca.source(t, id), trust.AuthorizeAny)))
		}
		impostor := serve(t, network, "impostor:15010", config, tlsOf("spiffe://east.mesh/ns/shop/sa/other"))
		defer impostor.stop()
		agent := serve(t, network, "agent:15010", config, tlsOf(agentID))
		defer agent.stop()
		p := newProxy(network, "impostor", "agent")
		p.config.Source = ca.source(t, proxyID)
		for i := range p.config.Targets {
			p.config.Targets[i].Authorize = trust.AuthorizeOneOf(spiffeid.RequireFromString(agentID))
		}
		defer p.start(t)()
		settle()
		if got := seen.Latest().ID.String(); got != proxyID || p.status.Latest().Target != "agent" {
			t.Errorf("peer %q, target %q", got, p.status.Latest().Target)
		}
	})
}

// TestStateOfTheWorld speaks to the server as a gRPC client's xDS resolver does: listener, route, cluster, endpoints,
// each asked for by name, acknowledged by nonce.
func TestStateOfTheWorld(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	state := newStore(shop(2).with(xds.Listener, "catalog", apiListener(t)).with(xds.Route, "r", string(encode(t, &routev3.RouteConfiguration{Name: "r"}))))
	plane := serveOn(listener, adsserver.Config[world]{State: state})
	defer plane.stop()
	conn, err := grpc.NewClient(listener.Addr().String(), ads.DialTLS(nil, nil, nil)...)
	must(t, err)
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	must(t, err)
	for _, c := range []struct {
		t     xds.Type
		names []string
		want  int
	}{
		{xds.Listener, []string{"catalog"}, 1}, {xds.Route, []string{"r"}, 1},
		{xds.Cluster, []string{"c0", "c1"}, 2}, {xds.Endpoints, []string{"c0"}, 1},
	} {
		must(t, stream.Send(&discoveryv3.DiscoveryRequest{
			Node: &corev3.Node{Id: "grpc"}, TypeUrl: string(c.t), ResourceNames: c.names,
		}))
		m, err := stream.Recv()
		must(t, err)
		if m.GetTypeUrl() != string(c.t) || len(m.GetResources()) != c.want || m.GetVersionInfo() == "" || m.GetNonce() == "" {
			t.Errorf("answer to %s: %v", c.t, m)
		}
		must(t, stream.Send(&discoveryv3.DiscoveryRequest{
			TypeUrl: string(c.t), ResourceNames: c.names, ResponseNonce: m.GetNonce(), VersionInfo: m.GetVersionInfo(),
		}))
	}
	state.value.Set(state.value.Latest().with(xds.Endpoints, "c0", "new"))
	m, err := stream.Recv()
	must(t, err)
	if len(m.GetResources()) != 1 || string(m.GetResources()[0].GetValue()) != "new" {
		t.Errorf("change: %v", m)
	}
}

func apiListener(t *testing.T) string {
	hcm, err := anypb.New(&hcmv3.HttpConnectionManager{RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
		Rds: &hcmv3.Rds{RouteConfigName: "r"},
	}})
	must(t, err)
	return string(encode(t, &listenerv3.Listener{
		Name: "catalog", ApiListener: &listenerv3.ApiListener{ApiListener: hcm},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: hcm},
		}}}},
	}))
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	must(t, err)
	return data
}

// TestFollowRoutes: routes follow from listeners.
func TestFollowRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		state := newStore(world{}.with(xds.Listener, "catalog", apiListener(t)).with(xds.Route, "r", "routes"))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		p.config.Wildcard = []xds.Type{xds.Listener}
		defer p.start(t)()
		settle()
		if got := p.get(xds.Route, "r"); got != "routes" {
			t.Errorf("r is %q", got)
		}
	})
}
