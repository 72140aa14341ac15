package ads_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// A client follows the members of the control plane: it leaves who left, and finds who joined, sending nothing again.
func TestTargetsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(3))
		for _, name := range []string{"c1", "c2"} {
			defer serve(t, network, name+":15010", adsserver.Config[world]{State: state}).stop()
		}
		targets := func(names ...string) (out []adsclient.Target) {
			for _, name := range names {
				out = append(out, adsclient.Target{Name: name, Address: name + ":15010"})
			}
			return out
		}
		p := newProxy(network, "c1")
		p.config.TargetUpdates = new(watch.Value[[]adsclient.Target])
		defer p.start(t)()
		settle()
		at, received := func() string { return p.status.Latest().Target }, p.received()
		if at() != "c1" || received == 0 {
			t.Fatalf("at %q", at())
		}
		for _, step := range []struct {
			targets []adsclient.Target
			want    string
		}{
			{targets("c1", "c2"), "c1"}, {targets("c2", "c1"), "c2"}, {targets("c1"), "c1"}, {nil, "c1"}, {targets("c2"), "c2"},
		} {
			p.config.TargetUpdates.Set(step.targets)
			time.Sleep(10 * time.Second)
			if settle(); at() != step.want {
				t.Errorf("targets %v: at %q", step.targets, at())
			}
		}
		if p.received() != received {
			t.Errorf("%d resources were sent again", p.received()-received)
		}
	})
}

// A control plane that comes late is found soon.
func TestFirstConnectionIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(1))
		p := newProxy(network, "agent")
		defer p.start(t)()
		time.Sleep(time.Minute)
		defer serve(t, network, "agent:15010", adsserver.Config[world]{State: state}).stop()
		time.Sleep(1100 * time.Millisecond)
		if settle(); p.get(xds.Cluster, "c0") == "" {
			t.Error("not connected after 1.4 s")
		}
	})
}
