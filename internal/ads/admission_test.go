package ads_test

import (
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// placeTerm is how long a stream that is sent much holds up others at most.
const placeTerm = 2 * time.Second

// TestAdmission: who is sent much waits for who is sent much, but for a client that does not answer not long, and who
// is sent little waits for nobody.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, state := new(memnet.Network), newStore(shop(300))
		agent := serve(t, network, "agent:15010", adsserver.Config[world]{State: state, LargeStreams: 1})
		defer agent.stop()
		silent, done := open(t, network)
		defer done()
		must(t, silent.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Cluster)}))
		settled := time.Now()
		synctest.Wait()

		small, finish := open(t, network)
		defer finish()
		must(t, small.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{"c7"}}))
		if m, err := small.Recv(); err != nil || len(m.GetResources()) != 1 || time.Since(settled) > 0 {
			t.Fatalf("%v, %v after %v", m, err, time.Since(settled))
		}

		first, second := newProxy(network, "agent"), newProxy(network, "agent")
		defer first.start(t)()
		defer second.start(t)()
		time.Sleep(placeTerm / 2)
		synctest.Wait()
		if first.received()+second.received() > 0 {
			t.Error("no place was free, and resources were sent")
		}
		time.Sleep(placeTerm)
		synctest.Wait()
		if a, b := first.received(), second.received(); a != 600 || b != 600 {
			t.Errorf("%d and %d resources of 600 came when the silent client's term was over", a, b)
		}
		third := newProxy(network, "agent")
		defer third.start(t)()
		if settle(); third.received() != 600 {
			t.Errorf("the place is still taken: %d resources came", third.received())
		}
	})
}
