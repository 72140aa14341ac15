package ads_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// world is a state for tests: type -> name -> body. It is not written after it was set.
type world map[xds.Type]map[string][]byte

type catalog struct{}

func (catalog) Get(w world, t xds.Type, name string) (xds.Resource, bool) {
	body, ok := w[t][name]
	if !ok {
		return xds.Resource{}, false
	}
	return xds.NewRawResource(t, name, body), true
}

func (catalog) Names(w world, t xds.Type) iter.Seq[string] { return maps.Keys(w[t]) }

func (catalog) Changed(old, now world) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		for _, t := range xds.Types() {
			for _, w := range []world{old, now} {
				for name := range w[t] {
					if string(old[t][name]) != string(now[t][name]) && !yield(t, name) {
						return
					}
				}
			}
		}
	}
}

// store is a State.
type store struct {
	value watch.Value[world]
	ready chan struct{}
}

func newStore(w world) *store {
	s := &store{ready: make(chan struct{})}
	s.value.Set(w)
	close(s.ready)
	return s
}

func (s *store) Latest() (world, <-chan struct{}) { return s.value.Get() }
func (s *store) Ready() <-chan struct{}           { return s.ready }

// with returns a world with one more resource; body "" removes it.
func (w world) with(t xds.Type, name, body string) world {
	next := make(world)
	for t, names := range w {
		next[t] = maps.Clone(names)
	}
	if next[t] == nil {
		next[t] = make(map[string][]byte)
	}
	next[t][name] = []byte(body)
	if body == "" {
		delete(next[t], name)
	}
	return next
}

// cluster is the body of an EDS cluster.
func cluster(name string, timeout time.Duration) string {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(&clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		AltStatName: timeout.String(),
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// plane is a control plane on a test network.
type plane struct {
	server *adsserver.Server[world]
	grpc   *grpc.Server
	done   chan struct{}
}

func serve(t *testing.T, network *memnet.Network, address string, config adsserver.Config[world], options ...grpc.ServerOption) *plane {
	t.Helper()
	listener, err := network.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(listener, config, options...)
}

func serveOn(listener net.Listener, config adsserver.Config[world], options ...grpc.ServerOption) *plane {
	if config.Authorize == nil {
		config.Authorize = func(context.Context, adsserver.Peer, *corev3.Node) (xds.Catalog[world], error) { return catalog{}, nil }
	}
	p := &plane{adsserver.New(config), grpc.NewServer(append(ads.ServerOptions(), options...)...), make(chan struct{})}
	p.server.Register(p.grpc)
	go func() {
		defer close(p.done)
		_ = p.grpc.Serve(listener)
	}()
	return p
}

func (p *plane) stop() {
	p.grpc.Stop()
	<-p.done
	p.server.Wait()
}

// proxy is a client under test: it keeps what was applied.
type proxy struct {
	config adsclient.Config
	status watch.Value[adsclient.Status]

	mu      sync.Mutex
	have    map[xds.Type]map[string]string
	upserts int // resources received from the network
	refuse  string
}

func newProxy(network *memnet.Network, targets ...string) *proxy {
	p := &proxy{have: make(map[xds.Type]map[string]string)}
	p.config = adsclient.Config{
		Node: &corev3.Node{Id: "sidecar~east~p1"}, Wildcard: []xds.Type{xds.Cluster}, Follow: true,
		Apply: p.apply, Dial: network.From("proxy"), Status: &p.status, Log: slog.New(slog.DiscardHandler),
	}
	for _, target := range targets {
		p.config.Targets = append(p.config.Targets, adsclient.Target{Name: target, Address: target + ":15010"})
	}
	return p
}

func (p *proxy) apply(u adsclient.Update) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, item := range u.Upserts {
		if p.refuse != "" && strings.Contains(string(item.Body), p.refuse) {
			return errors.New("this cannot work")
		}
	}
	if p.have[u.Type] == nil {
		p.have[u.Type] = make(map[string]string)
	}
	for _, item := range u.Upserts {
		p.have[u.Type][item.Name] = string(item.Body)
		if !u.FromDisk {
			p.upserts++
		}
	}
	for _, name := range u.Removed {
		delete(p.have[u.Type], name)
	}
	return nil
}

func (p *proxy) get(t xds.Type, name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have[t][name]
}

func (p *proxy) names(t xds.Type) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.have[t]))
}

func (p *proxy) received() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upserts
}

// start runs the client; the function that it returns ends it.
func (p *proxy) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- adsclient.Run(ctx, p.config) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	}
}
