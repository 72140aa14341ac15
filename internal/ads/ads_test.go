package ads_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// shop is a state with n clusters and their endpoints.
func shop(n int) world {
	w := world{}
	for i := range n {
		name := fmt.Sprintf("c%d", i)
		w = w.with(xds.Cluster, name, cluster(name, 0)).with(xds.Endpoints, name, "endpoints 1")
	}
	return w
}

// settle lets everything in the bubble that can happen now happen.
func settle() {
	time.Sleep(300 * time.Millisecond)
	synctest.Wait()
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(3))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		defer p.start(t)()
		settle()
		if got := p.names(xds.Endpoints); !slices.Equal(got, []string{"c0", "c1", "c2"}) {
			t.Fatalf("endpoints of %q were followed", got)
		}
		before := p.received()
		state.value.Set(state.value.Latest().with(xds.Endpoints, "c1", "endpoints 2"))
		settle()
		if p.get(xds.Endpoints, "c1") != "endpoints 2" || p.received() != before+1 {
			t.Errorf("c1 is %q after %d resources", p.get(xds.Endpoints, "c1"), p.received()-before)
		}
		state.value.Set(state.value.Latest().with(xds.Cluster, "c2", ""))
		settle()
		if got := p.names(xds.Endpoints); !slices.Equal(got, []string{"c0", "c1"}) {
			t.Errorf("endpoints of %q are kept after their cluster is gone", got)
		}
		streams := agent.server.Streams()
		if len(streams) != 1 || streams[0].NodeID != "sidecar~east~p1" || len(streams[0].Types) != 2 {
			t.Fatalf("streams: %+v", streams)
		}
		for _, s := range streams[0].Types {
			if s.Status != xds.Synced || s.Resources != 2 && s.Type == xds.Cluster || s.LastAck.IsZero() {
				t.Errorf("status: %+v", s)
			}
		}
	})
}

func TestNack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(2))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		p.refuse = "bad"
		defer p.start(t)()
		settle()
		state.value.Set(state.value.Latest().with(xds.Endpoints, "c1", "bad"))
		settle()
		if got := p.get(xds.Endpoints, "c1"); got != "endpoints 1" {
			t.Errorf("c1 is %q, the last good content should stay", got)
		}
		eds := agent.server.Streams()[0].Types[1]
		if eds.Status != xds.Error || eds.Detail != "this cannot work" {
			t.Errorf("status: %+v", eds)
		}
		state.value.Set(state.value.Latest().with(xds.Endpoints, "c1", "good"))
		settle()
		if got := p.get(xds.Endpoints, "c1"); got != "good" {
			t.Errorf("c1 is %q", got)
		}
		// A cluster that cannot be parsed is refused before it is applied.
		state.value.Set(state.value.Latest().with(xds.Cluster, "c9", "\xff\xff"))
		settle()
		if cds := agent.server.Streams()[0].Types[0]; cds.Status != xds.Error || p.get(xds.Cluster, "c9") != "" {
			t.Errorf("status: %+v", cds)
		}
	})
}

// TestFallback: the agent dies, a controller takes over within 2 s; the agent is back, the stream returns; neither
// move sends anything again.
func TestFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(100))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		controller := serve(t, network, "controller:15010", adsserver.Config[world]{State: state})
		defer controller.stop()
		p := newProxy(network, "agent", "controller")
		defer p.start(t)()
		settle()
		before := p.received()
		if before != 200 || p.status.Latest().Target != "agent" {
			t.Fatalf("%d resources from %q", before, p.status.Latest().Target)
		}
		network.Kill("agent")
		agent.stop()
		state.value.Set(state.value.Latest().with(xds.Endpoints, "c1", "endpoints 2"))
		time.Sleep(2 * time.Second)
		if p.status.Latest().Target != "controller" || p.get(xds.Endpoints, "c1") != "endpoints 2" {
			t.Errorf("2 s later: target %q, c1 %q", p.status.Latest().Target, p.get(xds.Endpoints, "c1"))
		}
		agent = serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		time.Sleep(6 * time.Second)
		if p.status.Latest().Target != "agent" {
			t.Errorf("target is %q after the agent came back", p.status.Latest().Target)
		}
		if got := p.received() - before; got != 1 {
			t.Errorf("%d resources were sent, one changed", got)
		}
		if n := len(controller.server.Streams()); n != 0 {
			t.Errorf("%d streams are still open at the controller", n)
		}
	})
}

// TestNotReady: a control plane that has not synced serves nobody, and is returned to once it has.
func TestNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(2))
		empty := &store{ready: make(chan struct{})}
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: empty})
		defer agent.stop()
		controller := serve(t, network, "controller:15010", adsserver.Config[world]{State: state})
		defer controller.stop()
		p := newProxy(network, "agent", "controller")
		defer p.start(t)()
		time.Sleep(10 * time.Second)
		if got := p.names(xds.Cluster); p.status.Latest().Target != "controller" || len(got) != 2 {
			t.Fatalf("target %q, clusters %q", p.status.Latest().Target, got)
		}
		empty.value.Set(state.value.Latest())
		close(empty.ready)
		time.Sleep(5 * time.Second)
		if p.status.Latest().Target != "agent" {
			t.Errorf("target is %q", p.status.Latest().Target)
		}
	})
}

// TestHungTarget: an agent that accepts connections and says nothing is passed over; one that hangs later is given
// up by keepalive.
func TestHungTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(2))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		controller := serve(t, network, "controller:15010", adsserver.Config[world]{State: state})
		defer controller.stop()
		network.CutOneWay("agent", "proxy")
		p := newProxy(network, "agent", "controller")
		defer p.start(t)()
		time.Sleep(2 * time.Second)
		if p.status.Latest().Target != "controller" {
			t.Fatalf("target is %q", p.status.Latest().Target)
		}
		network.Heal("agent", "proxy")
		time.Sleep(6 * time.Second)
		if p.status.Latest().Target != "agent" {
			t.Fatalf("target is %q after it healed", p.status.Latest().Target)
		}
		network.Cut("agent", "proxy")
		time.Sleep(18 * time.Second)
		if p.status.Latest().Target != "controller" {
			t.Errorf("target is %q, 18 s after the agent hung", p.status.Latest().Target)
		}
		network.Heal("agent", "proxy")
	})
}

// The generations of the disk cache.
const newest, previous = "resources", "resources.previous"

// TestDiskBoot: with every plane dead a proxy starts from disk; damage costs one generation, not the boot.
func TestDiskBoot(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		node   string
		want   string // content of c1 after boot
	}{
		{"whole", func(*testing.T, string) {}, "", "endpoints 2"},
		{"truncated", func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, newest), 300)) }, "", "endpoints 1"},
		{"empty", func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, newest), 0)) }, "", "endpoints 1"},
		{"bit", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, newest)) }, "", "endpoints 1"},
		{"gone", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, newest))) }, "", "endpoints 1"},
		{"both", func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, newest))
			flip(t, filepath.Join(dir, previous))
		}, "", ""},
		{"symlink", func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, newest), filepath.Join(dir, "x")))
			must(t, os.Symlink("x", filepath.Join(dir, newest)))
		}, "", "endpoints 1"},
		{"other node", func(*testing.T, string) {}, "sidecar~east~p2", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				network, state := new(memnet.Network), newStore(shop(3))
				agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
				first := newProxy(network, "agent")
				first.config.DiskCache = dir
				stop := first.start(t)
				time.Sleep(3 * time.Second)
				state.value.Set(state.value.Latest().with(xds.Endpoints, "c1", "endpoints 2"))
				time.Sleep(3 * time.Second)
				stop()
				agent.stop()
				c.damage(t, dir)

				second := newProxy(network, "agent")
				second.config.DiskCache = dir
				if c.node != "" {
					second.config.Node = &corev3.Node{Id: c.node}
				}
				defer second.start(t)()
				settle()
				if got := second.get(xds.Endpoints, "c1"); got != c.want {
					t.Errorf("c1 is %q, want %q", got, c.want)
				}
				if got := second.status.Latest(); got.FromDisk != (c.want != "") || got.Target != "" {
					t.Errorf("status: %+v", got)
				}
				if c.want != "endpoints 2" {
					return
				}
				agent = serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
				defer agent.stop()
				time.Sleep(12 * time.Second)
				if second.received() != 0 || second.status.Latest().Target != "agent" {
					t.Errorf("%d resources were sent again by %q", second.received(), second.status.Latest().Target)
				}
			})
		})
	}
}

// TestDamageIsNotKept: a damaged generation is not what the next one leaves behind, so that at any moment one is whole.
func TestDamageIsNotKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(3))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		p.config.DiskCache = dir
		stop := p.start(t)
		for _, content := range []string{"endpoints 2", "endpoints 3"} {
			time.Sleep(3 * time.Second)
			state.value.Set(state.value.Latest().with(xds.Endpoints, "c1", content))
		}
		time.Sleep(3 * time.Second)
		stop()
		flip(t, filepath.Join(dir, newest))

		stop = p.start(t)
		time.Sleep(3 * time.Second)
		stop()
		flip(t, filepath.Join(dir, newest))
		agent.stop()
		last := newProxy(network, "agent")
		last.config.DiskCache = dir
		defer last.start(t)()
		if settle(); last.get(xds.Endpoints, "c1") != "endpoints 2" {
			t.Errorf("c1 is %q after the newest generation was damaged twice", last.get(xds.Endpoints, "c1"))
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
}

// open opens a raw delta stream.
func open(t *testing.T, network *memnet.Network) (grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse], func()) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///agent:15010", ads.DialTLS(nil, nil, network.Dial)...)
	must(t, err)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	must(t, err)
	return stream, func() { _ = conn.Close() }
}

func TestRefusals(t *testing.T) {
	big := &corev3.Node{Id: string(make([]byte, 70<<10))}
	many := make([]string, xds.MaxNames+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for _, c := range []struct {
		name      string
		authorize error
		request   *discoveryv3.DeltaDiscoveryRequest
		want      codes.Code
	}{
		{"not authorised", errors.New("no"), &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Cluster)}, codes.PermissionDenied},
		{"own status", status.Error(codes.Unavailable, "later"), &discoveryv3.DeltaDiscoveryRequest{}, codes.Unavailable},
		{"large node", nil, &discoveryv3.DeltaDiscoveryRequest{Node: big}, codes.InvalidArgument},
		{"names", nil, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: many}, codes.ResourceExhausted},
		{"large request", nil, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(make([]byte, ads.MaxRequestBytes+1))}, codes.ResourceExhausted},
		{"silent", nil, nil, codes.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := new(memnet.Network)
				agent := serve(t, network, "agent:15010", adsserver.Config[world]{
					State: newStore(shop(1)),
					Authorize: func(context.Context, adsserver.Peer, *corev3.Node) (xds.Catalog[world], error) {
						return catalog{}, c.authorize
					},
				})
				defer agent.stop()
				stream, done := open(t, network)
				defer done()
				if c.request != nil {
					must(t, stream.Send(c.request))
				}
				for {
					if _, err := stream.Recv(); err != nil {
						if status.Code(err) != c.want {
							t.Errorf("got %v, want %v", err, c.want)
						}
						return
					}
				}
			})
		})
	}
}
