package ads_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/xds"
)

type unwanted string

func (r unwanted) Error() string   { return "cannot have " + string(r) }
func (r unwanted) Refused() string { return string(r) }

// One cluster of an update that cannot be used must not leave the others without endpoints.
func TestAcceptedPartIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(2))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		p.config.DiskCache = t.TempDir()
		p.config.Apply = func(u adsclient.Update) error {
			if u.Type != xds.Cluster {
				return p.apply(u)
			}
			taken := u
			taken.Upserts = slices.DeleteFunc(slices.Clone(u.Upserts), func(i adsclient.Item) bool { return i.Name == "c0" })
			return errors.Join(unwanted("c0"), p.apply(taken))
		}
		stop := p.start(t)
		settle()
		if got := p.names(xds.Endpoints); !slices.Equal(got, []string{"c1"}) {
			t.Errorf("endpoints of %q", got)
		}
		// The refusal is told, and what was accepted goes on changing.
		if cds := agent.server.Streams()[0].Types[0]; cds.Status != xds.Error || cds.Detail != "cannot have c0" {
			t.Errorf("status: %+v", cds)
		}
		changed := cluster("c1", time.Minute)
		state.value.Set(state.value.Latest().with(xds.Cluster, "c1", changed))
		settle()
		if p.get(xds.Cluster, "c1") != changed {
			t.Error("the accepted cluster is not followed")
		}
		stop()
		agent.stop()
		later := newProxy(network, "agent")
		later.config.DiskCache = p.config.DiskCache
		defer later.start(t)()
		settle()
		for _, kind := range []xds.Type{xds.Cluster, xds.Endpoints} {
			if got := later.names(kind); !slices.Equal(got, []string{"c1"}) {
				t.Errorf("on disk: %s %q", kind, got)
			}
		}
	})
}

// A new service's endpoints come before the routes that lead to it, also when all of it is new at once.
func TestEndpointsComeBeforeTheRoutesToThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(1).with(xds.Route, "outbound", "routes 0"))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state})
		defer agent.stop()
		p := newProxy(network, "agent")
		p.config.Wildcard = []xds.Type{xds.Cluster, xds.Route}
		var order []string
		p.config.Apply = func(u adsclient.Update) error {
			for _, item := range u.Upserts {
				if u.Type != xds.Cluster {
					order = append(order, item.Name+" "+string(item.Body))
				}
			}
			return p.apply(u)
		}
		stop := p.start(t)
		settle()
		for i := 1; i <= 20; i++ {
			name, routes := fmt.Sprint("c", i), fmt.Sprint("routes ", i)
			state.value.Set(state.value.Latest().with(xds.Cluster, name, cluster(name, 0)).
				with(xds.Endpoints, name, "endpoints").with(xds.Route, "outbound", routes))
			settle()
		}
		stop()
		for i := 1; i <= 20; i++ {
			endpoints, routes := slices.Index(order, fmt.Sprintf("c%d endpoints", i)), slices.Index(order, fmt.Sprint("outbound routes ", i))
			if endpoints < 0 || routes < endpoints {
				t.Fatalf("order %q", order)
			}
		}
	})
}
