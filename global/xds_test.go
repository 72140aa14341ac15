package global

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/continuity"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// follower is an xDS client and the names that it has.
type follower struct {
	mu    sync.Mutex
	names map[string]bool
}

func (f *follower) apply(u adsclient.Update) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, item := range u.Upserts {
		f.names[item.Name] = true
	}
	for _, name := range u.Removed {
		delete(f.names, name)
	}
	return nil
}

func (f *follower) has(names ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !slices.ContainsFunc(names, func(n string) bool { return !f.names[n] })
}

func follow(t *testing.T, c *controllers, at string, source trust.Source, types ...xds.Type) *follower {
	f := &follower{names: make(map[string]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		adsclient.Run(ctx, adsclient.Config{
			Targets: []adsclient.Target{{Name: at, Address: c.configs[at].MeshAdvertise, Authorize: peer.OnlyController(spiffeid.RequireTrustDomainFromString(plane), "")}},
			Source:  source, Node: &corev3.Node{Id: "test", Locality: &corev3.Locality{Region: "eu-west", Zone: "a"}}, Wildcard: types, Follow: true, Apply: f.apply,
		})
	}()
	return f
}

// proxySource is a workload of a cluster's own trust domain that knows the control plane's root.
func (c *controllers) proxySource(ca *trusttest.CA, path string) trust.Source {
	m := *ca.SVID(path, time.Hour)
	m.Bundles = map[spiffeid.TrustDomain][]*x509.Certificate{spiffeid.RequireTrustDomainFromString(plane): {c.root()}}
	return fixed{&m}
}

type fixed struct{ m *trust.Material }

func (f fixed) Get() (*trust.Material, <-chan struct{}) { return f.m, nil }

func federation(t *testing.T, ca *trusttest.CA, cluster string, sequence uint64) *pb.Object {
	agent := ca.SVID("/periplus/agent", time.Hour)
	bundle, err := trust.NewBundle(ca.TrustDomain, sequence, agent.Bundles[ca.TrustDomain], nil).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	signature, chain, err := continuity.Sign(agent, ca.TrustDomain, sequence, bundle)
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{
		TrustDomain: ca.TrustDomain.Name(), Cluster: cluster, Sequence: sequence, Bundle: bundle, Signature: signature, Chain: chain,
	}}}
}

func TestDiscoveryByIdentity(t *testing.T) {
	c := start(t, "a", "b", "c")
	west := c.join("a", cluster("west", "eu-west", "10.1.0.0/16"))
	east := c.join("b", cluster("east", "us-east", "10.2.0.0/16"))
	ca := trusttest.NewCA("west.mesh")
	r, err := report(t, pb.NewAgentServiceClient(c.agent("a", west)), "1")
	if err != nil {
		t.Fatal(err)
	}
	ack := r.update([]*pb.Object{service("west", "shop", "catalog"), endpoints("west", "catalog", nil), federation(t, ca, "west", 1)})
	if len(ack.GetRejections()) != 0 {
		t.Fatal(ack)
	}
	other := follow(t, c, "c", east, xds.MeshObject)
	eventually(t, "the other cluster's agent follows", func() bool {
		return other.has("cluster/west", "service/shop/catalog/west", "federation/west.mesh")
	})
	sidecar := follow(t, c, "b", c.proxySource(ca, "/ns/shop/sa/storefront"), xds.Cluster)
	eventually(t, "a sidecar is configured", func() bool {
		return sidecar.has("outbound|80||catalog.shop.svc.cluster.local")
	})
	stranger := follow(t, c, "b", c.proxySource(trusttest.NewCA("west.mesh"), "/ns/shop/sa/storefront"), xds.Cluster)
	odd := follow(t, c, "b", c.proxySource(ca, "/something/else"), xds.Cluster)
	r.update(nil, "service/shop/catalog/west", "endpoints/shop/catalog/west/s")
	eventually(t, "the removal reaches everybody", func() bool {
		return !other.has("service/shop/catalog/west") && !sidecar.has("outbound|80||catalog.shop.svc.cluster.local")
	})
	if len(stranger.names)+len(odd.names) != 0 {
		t.Errorf("strangers got %v and %v", stranger.names, odd.names)
	}
}

func TestReplicaJoins(t *testing.T) {
	c := start(t, "a")
	c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	if err := pki.AddReplica(filepath.Join(c.dir, "pki"), "b"); err != nil {
		t.Fatal(err)
	}
	config := c.listen("b")
	config.Join = c.configs["a"].MeshAdvertise
	c.run("b", config)
	c.waitReady("b")
	token := c.register("b", cluster("east", "us-east", "10.2.0.0/16"))
	if len(token.Controllers) != 2 {
		t.Errorf("controllers %v", token.Controllers)
	}
}

func TestWrongKeysAreRefused(t *testing.T) {
	c := start(t, "a")
	config := c.listen("b")
	config.PKI = c.configs["a"].PKI
	if err := Run(t.Context(), config); err == nil {
		t.Error("replica b runs with the keys of a")
	}
}

// The whole controller in virtual time, on a network in memory: in moments, and nothing left behind.
func TestInVirtualTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		if err := pki.Init(dir, plane, []string{"a", "b", "c"}, nil); err != nil {
			t.Fatal(err)
		}
		network := new(memnet.Network)
		var peers []Peer
		for _, id := range []string{"a", "b", "c"} {
			peers = append(peers, Peer{id, id + ":1", id + ":2"})
		}
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for _, p := range peers {
			issuer, err := pki.Load(filepath.Join(dir, p.ID))
			if err != nil {
				t.Fatal(err)
			}
			config := Config{
				ID: p.ID, InMemory: true, RaftAdvertise: p.RaftAddress, MeshAdvertise: p.MeshAddress, Peers: peers, Bootstrap: true,
				PKI: issuer, Log: logger(), Metrics: prometheus.NewRegistry(), Dial: network.From(p.ID),
			}
			for address, to := range map[string]*net.Listener{":1": &config.RaftListener, ":2": &config.MeshListener, ":3": &config.AdminListener} {
				if *to, err = network.Listen(p.ID + address); err != nil {
					t.Fatal(err)
				}
			}
			group.Go(func() {
				if err := Run(ctx, config); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(fmt.Errorf("replica %s: %w", p.ID, err))
				}
			})
		}
		time.Sleep(20 * time.Second)
		cancel()
		group.Wait()
	})
}
