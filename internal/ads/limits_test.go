package ads_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// TestSlowConsumer: a client that does not answer, and one that does not even read, is let go after a minute.
func TestSlowConsumer(t *testing.T) {
	for _, size := range []int{10, 900 << 10} {
		synctest.Test(t, func(t *testing.T) {
			network := new(memnet.Network)
			state := newStore(world{}.with(xds.Endpoints, "c", string(make([]byte, size))))
			agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
			defer agent.stop()
			stream, done := open(t, network)
			defer done()
			must(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{"c"},
			}))
			time.Sleep(55 * time.Second)
			if n := len(agent.server.Streams()); n != 1 {
				t.Fatalf("%d streams after 55 s", n)
			}
			time.Sleep(30 * time.Second)
			if n := len(agent.server.Streams()); n != 0 {
				t.Errorf("%d streams after 85 s", n)
			}
		})
	}
}

// TestRequestRate: requests beyond the rate are read later, and cost no other stream anything.
func TestRequestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: newStore(shop(1))})
		defer agent.stop()
		stream, done := open(t, network)
		defer done()
		start := time.Now()
		for i := range 140 {
			must(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{fmt.Sprint("n", i)},
			}))
		}
		for seen := 0; seen < 140; {
			m, err := stream.Recv()
			must(t, err)
			seen += len(m.GetRemovedResources())
			must(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}))
		}
		if took := time.Since(start); took < 4*time.Second || took > 8*time.Second {
			t.Errorf("140 requests took %v; 40 are free and the others 50 ms each", took)
		}
	})
}

// TestCoalescing: a lone change leaves at once; of a storm every stream is sent the end, in few pushes.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(1))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state, PushesPerSecond: 10})
		defer agent.stop()
		p := newProxy(network, "agent")
		defer p.start(t)()
		settle()
		before := p.received()
		state.value.Set(state.value.Latest().with(xds.Endpoints, "c0", "lone"))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := p.get(xds.Endpoints, "c0"); got != "lone" {
			t.Errorf("c0 is %q after 1 ms", got)
		}
		for i := range 1000 {
			state.value.Set(state.value.Latest().with(xds.Endpoints, "c0", fmt.Sprint(i)))
			time.Sleep(time.Millisecond)
		}
		settle()
		if got := p.get(xds.Endpoints, "c0"); got != "999" {
			t.Errorf("c0 is %q after the storm", got)
		}
		if n := p.received() - before; n > 15 {
			t.Errorf("1000 changes in 1 s were sent in %d pushes, the limit is 10/s", n)
		}
	})
}

// TestStreamsMoveTogether: in a storm all streams are sent the same few states, whenever they began, so that what is built
// for one serves them all.
func TestStreamsMoveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(1))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state, PushesPerSecond: 10})
		defer agent.stop()
		storm := func(milliseconds int) {
			for range milliseconds {
				time.Sleep(time.Millisecond)
				state.value.Set(state.value.Latest().with(xds.Endpoints, "c0", time.Now().String()))
			}
		}
		const proxies = 5
		var mu sync.Mutex
		sent := make(map[string]int) // how many were sent each content
		for range proxies {
			p := newProxy(network, "agent")
			apply := p.config.Apply
			p.config.Apply = func(u adsclient.Update) error {
				mu.Lock()
				defer mu.Unlock()
				for _, item := range u.Upserts {
					sent[string(item.Body)]++
				}
				return apply(u)
			}
			defer p.start(t)()
			storm(130)
		}
		storm(1000)
		mu.Lock()
		clear(sent)
		mu.Unlock()
		storm(4000)
		settle()
		mu.Lock()
		defer mu.Unlock()
		if len(sent) < 6 || len(sent) > 12 {
			t.Errorf("%d states were sent in 4 s, where each stream is left alone for half a second", len(sent))
		}
		for content, n := range sent {
			if n != proxies {
				t.Errorf("%d of %d streams were sent the state of %s", n, proxies, content)
			}
		}
	})
}

// TestLargeResource: one resource larger than what gRPC takes by default arrives, for all routes of a sidecar are one.
func TestLargeResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		state := newStore(world{}.with(xds.Route, "outbound", string(make([]byte, 12<<20))))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		p.config.Wildcard = []xds.Type{xds.Route}
		defer p.start(t)()
		settle()
		if got := len(p.get(xds.Route, "outbound")); got != 12<<20 {
			t.Errorf("%d bytes came", got)
		}
	})
}

// TestLargeResume: an agent that has very many objects resumes by naming them all, and is sent none of them again.
func TestLargeResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, objects := new(memnet.Network), world{xds.MeshObject: {}}
		for i := range 60_000 {
			objects[xds.MeshObject][fmt.Sprintf("endpoints/a-namespace/a-service-with-a-long-name-%05d/cluster-eu-west/slice-0", i)] = []byte("x")
		}
		state := newStore(objects)
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		p := newProxy(network, "agent")
		p.config.Wildcard = []xds.Type{xds.MeshObject}
		defer p.start(t)()
		time.Sleep(10 * time.Second)
		before := p.received()
		if before != 60_000 {
			t.Fatalf("%d objects came", before)
		}
		network.Kill("agent")
		agent.stop()
		agent = serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		time.Sleep(10 * time.Second)
		if got := p.status.Latest().Target; got != "agent" || p.received() != before {
			t.Errorf("target %q, %d objects sent again", got, p.received()-before)
		}
		state.value.Set(state.value.Latest().with(xds.MeshObject, "service/new", "y"))
		settle()
		if p.get(xds.MeshObject, "service/new") != "y" {
			t.Error("what changes after the resumption does not come")
		}
	})
}
