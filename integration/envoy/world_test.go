package envoy

import (
	"context"
	"encoding/pem"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/builder"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// world is a mesh and a client that looks at it. The marker is a cluster that no other world has: a client that has it
// has begun to take this world in.
type world struct {
	marker   string
	snapshot *mesh.Snapshot
	client   *catalog.Catalog
}

var kinds = []xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route}

// worlds is the xDS catalog of whatever world is the present one.
type worlds struct{}

func (worlds) Get(w world, t xds.Type, name string) (xds.Resource, bool) {
	if t == xds.Cluster && name == w.marker {
		return xds.NewResource(t, name, &clusterv3.Cluster{
			Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		}), true
	}
	return w.client.Get(w.snapshot, t, name)
}

func (worlds) Names(w world, t xds.Type) iter.Seq[string] {
	names := slices.Collect(w.client.Names(w.snapshot, t))
	if t == xds.Cluster {
		names = append(names, w.marker)
	}
	return slices.Values(names)
}

func (c worlds) Changed(old, now world) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		for _, t := range kinds {
			for _, w := range []world{old, now} {
				for name := range c.Names(w, t) {
					if !yield(t, name) {
						return
					}
				}
			}
		}
	}
}

type present struct{ watch.Value[world] }

func (p *present) Latest() (world, <-chan struct{}) { return p.Get() }

func (p *present) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

// bench is our xDS server with two Envoys at it, one for each variant of the protocol.
type bench struct {
	t       *testing.T
	present present
	server  *adsserver.Server[world]
	envoys  map[string]*realdeps.Envoy
	count   int
	refused map[string]map[string]int // what each had refused before the present world
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, envoys: map[string]*realdeps.Envoy{}, refused: map[string]map[string]int{}}
	b.present.Set(world{marker: "marker-0", snapshot: mesh.Empty, client: catalog.Of(translate.View{Role: translate.Sidecar})})
	b.server = adsserver.New(adsserver.Config[world]{
		State:     &b.present,
		Authorize: func(context.Context, adsserver.Peer, *corev3.Node) (xds.Catalog[world], error) { return worlds{}, nil },
	})
	server := grpc.NewServer(ads.ServerOptions()...)
	b.server.Register(server)
	xdsAddress := serve(t, server, "tcp", "127.0.0.1:0")
	dir, err := os.MkdirTemp("/tmp", "env")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	secrets := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(secrets, newIdentity())
	socket := serve(t, secrets, "unix", filepath.Join(dir, "sds.sock"))
	for _, variant := range []string{"delta", "sotw"} {
		admin := netip.MustParseAddrPort(realdeps.Address())
		agent := netip.MustParseAddrPort(xdsAddress)
		client := envoy.Client{
			Role: translate.Sidecar, Name: variant, Cluster: "a", Service: "catalog.shop", Network: "n1", TrustDomain: spiffeid.RequireTrustDomainFromString("a.mesh"),
			Agent: envoy.Address{Host: agent.Addr().String(), Port: agent.Port()}, Socket: socket, Admin: admin, Delta: variant == "delta",
		}
		bootstrap := client.Bootstrap()
		bootstrap.StaticResources.Clusters[0].TransportSocketMatches = nil // this server is without TLS
		data, err := protojson.Marshal(bootstrap)
		if err != nil {
			t.Fatal(err)
		}
		b.envoys[variant] = realdeps.StartEnvoy(t, "envoy-"+variant, "", admin.String(), data)
	}
	return b
}

func serve(t *testing.T, server *grpc.Server, network, address string) string {
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// identity serves what SPIRE serves to Envoy, for a domain of its own.
type identity struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	secrets map[string]*tlsv3.Secret
}

func newIdentity() *identity {
	ca := trusttest.NewCA("a.mesh")
	material := ca.SVID("/ns/shop/sa/catalog", time.Hour)
	text := func(kind string, data []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})}}
	}
	key, err := marshalKey(material.Certificate.PrivateKey)
	if err != nil {
		panic(err)
	}
	return &identity{secrets: map[string]*tlsv3.Secret{
		"default": {Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: text("CERTIFICATE", material.Certificate.Certificate[0]), PrivateKey: text("PRIVATE KEY", key),
		}}},
		"ALL": {Name: "ALL", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: text("CERTIFICATE", ca.Root().Raw),
		}}},
	}}
}

func (i *identity) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if request.GetResponseNonce() != "" {
			continue
		}
		response := &discoveryv3.DiscoveryResponse{TypeUrl: request.GetTypeUrl(), VersionInfo: "1", Nonce: "1"}
		for _, name := range request.GetResourceNames() {
			packed, err := anypb.New(i.secrets[name])
			if err != nil {
				return err
			}
			response.Resources = append(response.Resources, packed)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// accepted shows a world to both Envoys and to the configuration of the mesh's own proxy, and says what they refuse.
func (b *bench) accepted(v translate.View, objects []mesh.Object) error {
	b.count++
	w := world{marker: fmt.Sprint("marker-", b.count)}
	w.snapshot = new(mesh.Store).Update(mesh.Delta{Upserts: objects})
	// Listeners of different worlds have different names at the same address, which no client's ever have.
	v.Workload = strings.ReplaceAll(v.Workload, `"BIND":"127.0.0.1"`, fmt.Sprintf(`"BIND":"127.44.%d.%d"`, 100+b.count/200, 1+b.count%200))
	w.client = catalog.Of(v)
	if err := ownProxy(w); err != nil {
		return fmt.Errorf("the mesh's own proxy: %w", err)
	}
	for variant, e := range b.envoys {
		b.refused[variant] = e.Stats(`update_rejected`)
	}
	b.present.Set(w)
	for variant, e := range b.envoys {
		if err := b.settled(variant, e, w); err != nil {
			return fmt.Errorf("envoy (%s): %w", variant, err)
		}
	}
	return nil
}

// ownProxy gives a world to the mesh's own proxy.
func ownProxy(w world) error {
	built := builder.New()
	for _, t := range kinds {
		u := config.Update{Type: t}
		for name := range w.client.Names(w.snapshot, t) {
			resource, ok := w.client.Get(w.snapshot, t, name)
			var packed anypb.Any
			if err := proto.Unmarshal(resource.Any, &packed); err != nil || !ok {
				return fmt.Errorf("%q is named and not there: %w", name, err)
			}
			u.Upserts = append(u.Upserts, config.Resource{Name: name, Version: resource.Version.String(), Body: packed.GetValue()})
		}
		if _, err := built.Apply(u); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until an Envoy has all of a world and waits for nothing.
func (b *bench) settled(variant string, e *realdeps.Envoy, w world) error {
	deadline, quiet := time.Now().Add(10*time.Second), 0
	for {
		err := b.state(variant, e, w)
		if err == nil {
			if quiet++; quiet == 3 { // between two types of a response there is a moment in which nothing is open
				return nil
			}
		} else if quiet = 0; time.Now().After(deadline) || strings.Contains(err.Error(), "refused") {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *bench) state(variant string, e *realdeps.Envoy, w world) error {
	if err := b.stream(variant); err != nil {
		return err
	}
	if !strings.Contains(e.Get("/clusters"), "\n"+w.marker+"::") {
		return fmt.Errorf("%s has not come", w.marker)
	}
	stats := e.Stats(`(warming|update_rejected|active_clusters|total_listeners_active|create_failure)`)
	want := map[string]int{"cluster_manager.active_clusters": 3, "listener_manager.total_listeners_active": 0}
	for range w.client.Names(w.snapshot, xds.Cluster) {
		want["cluster_manager.active_clusters"]++
	}
	for range w.client.Names(w.snapshot, xds.Listener) {
		want["listener_manager.total_listeners_active"]++
	}
	for name, value := range stats {
		if value -= b.refused[variant][name]; value != want[name] {
			return fmt.Errorf("%s is %d, want %d", name, value, want[name])
		}
	}
	return nil
}

func (b *bench) stream(variant string) error {
	for _, s := range b.server.Streams() {
		if !strings.HasSuffix(s.NodeID, "~"+variant) {
			continue
		}
		for _, t := range s.Types {
			if t.Detail != "" {
				return fmt.Errorf("refused: %s", t.Detail)
			}
			if t.Status != xds.Synced {
				return fmt.Errorf("%s is %s", t.Type, t.Status)
			}
		}
		return nil
	}
	return fmt.Errorf("no stream")
}
