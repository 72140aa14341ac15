package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// callTo returns how to begin calls to a host that is dialled so.
func callTo(t *testing.T, dial func(context.Context) error) func() *forward.Call {
	settings := &config.Settings{Name: "c", ConnectTimeout: 10 * time.Second, Protocol: config.UpstreamHTTP2}
	h := &config.HTTP{Routes: &config.RouteTable{VirtualHosts: []*config.VirtualHost{{Domains: []string{"*"}, Routes: []*config.Route{{
		Match: config.RouteMatch{Path: config.PathMatch{Value: "/"}}, Forward: &config.Forward{Clusters: []config.WeightedCluster{{Name: "c", Weight: 1}}, TotalWeight: 1},
	}}}}}}
	clusters := forward.NewClusters(forward.ClustersConfig{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, dial(ctx) }})
	clusters.Update(&config.Config{
		Listeners: map[string]*config.Listener{"l": {Name: "l", Chains: []*config.FilterChain{{HTTP: h}}}},
		Clusters: map[string]*config.Cluster{"c": {Name: "c", Settings: settings, Endpoints: &config.Endpoints{Localities: []config.Locality{{
			Endpoints: []config.Endpoint{{Address: netip.MustParseAddrPort("192.0.2.1:80"), Weight: 1}}}}}}},
	})
	return func() *forward.Call {
		call := &forward.Call{}
		if !clusters.View().Start(call, &route.Request{Authority: "a", Method: "GET", Path: "/"}, h, time.Now()) || !call.Next() {
			t.Fatal(call.Reply)
		}
		return call
	}
}

// Of a burst of requests to a host that does not answer one dials, and the others share what comes of it: they do not
// wait for one connect timeout each.
func TestABurstDialsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		call := callTo(t, func(ctx context.Context) error {
			dials.Add(1)
			<-ctx.Done()
			return ctx.Err()
		})
		var u Pools
		began := time.Now()
		var work sync.WaitGroup
		for range 20 {
			c := call()
			work.Go(func() {
				if _, err := u.Connect(t.Context(), c, true, time.Time{}); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		work.Wait()
		if took := time.Since(began); took > 10*time.Second || dials.Load() != 1 {
			t.Errorf("%v, %d dials", took, dials.Load())
		}
	})
}

// Who waits for another's dial waits no longer than its own time, and whoever gives up takes nobody along.
func TestWaitingForADialIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		var dials atomic.Int64
		call := callTo(t, func(ctx context.Context) error {
			if dials.Add(1) > 1 {
				return refused
			}
			<-ctx.Done()
			return ctx.Err()
		})
		var u Pools
		first, giveUp := context.WithTimeout(t.Context(), 3*time.Second)
		defer giveUp()
		began := time.Now()
		var work sync.WaitGroup
		work.Go(func() { _, _ = u.Connect(first, call(), true, time.Time{}) })
		synctest.Wait()
		for _, c := range []struct {
			until time.Duration
			want  error
			after time.Duration
		}{{time.Second, forward.ErrWaited, time.Second}, {0, refused, 3 * time.Second}} {
			work.Go(func() {
				until := time.Time{}
				if c.until > 0 {
					until = began.Add(c.until)
				}
				if _, err := u.Connect(t.Context(), call(), true, until); !errors.Is(err, c.want) || time.Since(began) != c.after {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			})
		}
		work.Wait()
	})
}

// A request that has found a pool which is then given up looks for another, so that no connection is forgotten.
func TestAPoolThatIsGivenUpIsNotUsed(t *testing.T) {
	call := callTo(t, func(context.Context) error { return errors.New("refused") })()
	var u Pools
	k := key{call.Cluster.Settings, call.Host.Address, true}
	p := u.get(k)
	u.Sweep(forward.NewClusters(forward.ClustersConfig{}).View(), time.Now())
	if c, d, first := p.reserve(k); c != nil || d != nil || first || u.get(k) == p {
		t.Error("it is used")
	}
	u.Close()
	if _, err := u.Connect(t.Context(), call, true, time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
