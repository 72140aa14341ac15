package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/demo"
)

// Every request of a chain of three services stays in its zone, in both zones of a region.
func TestHealthyTrafficStaysInItsZone(t *testing.T) {
	for _, service := range []string{"storefront", "catalog", "inventory"} {
		running.withoutRetries(t, service)
	}
	loads := map[string]*load{}
	for _, zone := range []string{"eu-west-a", "eu-west-b"} {
		loads[zone] = startLoad(t, running.outbound("visitor-"+zone), "storefront.shop")
	}
	time.Sleep(5 * time.Second)
	for at, l := range loads {
		results := l.stop()
		noneFailed(t, results)
		for hops := 0; hops < 3; hops++ {
			near(t, results, func(h *demo.Hop) string {
				for range hops {
					h = h.Upstream
				}
				return zone(h)
			}, map[string]float64{at: 1})
		}
	}
}

func TestEndpointDrained(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(2 * time.Second)
	running.act(t, "stop", "catalog-eu-west-a")
	drained := time.Now()
	time.Sleep(2 * time.Second)
	restored := time.Now()
	running.restore(t, "catalog-eu-west-a")
	time.Sleep(4 * time.Second)
	results := l.stop()
	noneFailed(t, results)
	near(t, before(since(results, drained), restored), zone, map[string]float64{"eu-west-b": 1})
	near(t, last(results, time.Second), zone, map[string]float64{"eu-west-a": 1})
}

// inFlight is more than a request takes: what was sent so long before a fault had been answered.
const inFlight = 200 * time.Millisecond

// callers listens where a process was that died, and returns how many connections were made to it until the test
// asks: a proxy may repeat what it could not send, so that no failed request tells of it.
func callers(t *testing.T, address string) (count func() int64) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	var n atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			conn.Close()
		}
	}()
	return func() int64 {
		listener.Close()
		return n.Load()
	}
}

func TestEndpointKilled(t *testing.T) {
	t.Run("without retries", func(t *testing.T) {
		running.withoutRetries(t, "catalog")
		l := startLoad(t, running.outbound(visitorA), "catalog.shop")
		time.Sleep(2 * time.Second)
		killed := time.Now()
		running.act(t, "kill", "catalog-eu-west-a")
		time.Sleep(time.Until(killed.Add(time.Second)))
		count := callers(t, running.inbound("catalog-eu-west-a"))
		time.Sleep(3 * time.Second)
		if n := count(); n > 0 {
			t.Errorf("%d connections were made to the dead endpoint more than 1 s after its death", n)
		}
		results := l.stop()
		near(t, before(results, killed.Add(-inFlight)), zone, map[string]float64{"eu-west-a": 1})
		near(t, since(results, killed.Add(time.Second)), zone, map[string]float64{"eu-west-b": 1})
		bad := failed(results)
		t.Logf("%d of %d requests failed", len(bad), len(results))
		if late := failed(since(results, killed.Add(time.Second))); len(late) > 0 {
			t.Errorf("%d requests sent more than 1 s later failed: %v", len(late), late[0].err)
		}
		for _, r := range bad {
			if r.done.Before(killed) {
				t.Errorf("a request failed before the kill: %v", r.err)
			}
		}
		// Until the news arrives a request may still be sent there: a few on an idle machine, bounded on a busy one.
		if len(bad) > loadRate/4 {
			t.Errorf("%d requests failed, want at most those in flight", len(bad))
		}
	})
	t.Run("with the default retries", func(t *testing.T) {
		running.settle()
		l := startLoad(t, running.outbound(visitorA), "catalog.shop")
		time.Sleep(2 * time.Second)
		killed := time.Now()
		running.act(t, "kill", "catalog-eu-west-a")
		time.Sleep(3 * time.Second)
		results := l.stop()
		noneFailed(t, results)
		near(t, before(results, killed.Add(-inFlight)), zone, map[string]float64{"eu-west-a": 1})
		near(t, since(results, killed.Add(time.Second)), zone, map[string]float64{"eu-west-b": 1})
	})
	t.Run("with the default retries, many at once, and before anybody hears of it", func(t *testing.T) {
		running.settle()
		t.Cleanup(func() { running.restore(t, "catalog-eu-west-a") })
		running.act(t, "pause", "agent-eu-west")
		t.Cleanup(func() {
			if err := running.control.Act(context.Background(), "resume", "agent-eu-west"); err != nil {
				t.Error(err)
			}
		})
		if err := running.control.Act(t.Context(), "kill", "catalog-eu-west-a"); err != nil {
			t.Fatal(err)
		}
		client := demo.NewClient(running.outbound(visitorA))
		defer client.CloseIdleConnections()
		const atOnce = 60
		results := make([]result, atOnce)
		var all sync.WaitGroup
		for i := range results {
			all.Go(func() {
				results[i].sent = time.Now()
				results[i].hop, results[i].err = demo.Ask(t.Context(), client, "catalog.shop", "/")
			})
		}
		all.Wait()
		noneFailed(t, results)
		near(t, results, zone, map[string]float64{"eu-west-b": 1})
	})
}

// farAnswers counts the requests that a sidecar sent to catalog in another region, and of which it verified that a
// workload of that region's own trust domain answered.
func farAnswers(t *testing.T, sidecar string) float64 {
	t.Helper()
	return value(t, sidecar, `istio_requests_total\{[^}]*destination_principal="`+far+`"[^}]*reporter="source"[^}]*response_code="200"[^}]*\}`)
}

// farGateways adds up a metric of the gateways of the other regions.
func farGateways(t *testing.T, metric string) (sum float64) {
	t.Helper()
	for _, gateway := range []string{"gateway-us-east-a", "gateway-us-east-b", "gateway-ap-south-a", "gateway-ap-south-b"} {
		sum += value(t, gateway, metric)
	}
	return sum
}

func TestAllLocalEndpointsKilled(t *testing.T) {
	running.withoutRetries(t, "catalog")
	verified, passed := farAnswers(t, visitorA), farGateways(t, "periplus_gateway_connections_opened_total")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	killed := time.Now()
	running.act(t, "kill", "catalog-eu-west-a", "catalog-eu-west-b")
	time.Sleep(time.Until(killed.Add(7 * time.Second)))
	back := time.Now()
	running.restore(t, "catalog-eu-west-a")
	running.restore(t, "catalog-eu-west-b")
	time.Sleep(5 * time.Second)
	results := l.stop()
	if late := failed(since(results, killed.Add(5*time.Second))); len(late) > 0 {
		t.Errorf("%d requests sent more than 5 s later failed: %v", len(late), late[0].err)
	}
	crossed := before(since(results, killed.Add(5*time.Second)), back)
	if got := shares(crossed, region); got["eu-west"] != 0 || len(got) == 0 {
		t.Errorf("while the region had none: %v", got)
	}
	near(t, last(results, time.Second), region, map[string]float64{"eu-west": 1})
	away := 0.0
	for _, r := range results {
		if r.err != nil || r.hop.Region == "eu-west" {
			continue
		}
		if away++; r.hop.Client != visitorID {
			t.Fatalf("the far workload sees %q as its client: mTLS is not end to end", r.hop.Client)
		}
	}
	within(t, 3*time.Second, "the client's sidecar verified the far workload's own identity each time", func() error {
		if got := farAnswers(t, visitorA) - verified; got != away {
			return fmt.Errorf("%v of %v answers", got, away)
		}
		return nil
	})
	if farGateways(t, "periplus_gateway_connections_opened_total") == passed {
		t.Error("no gateway passed on a connection")
	}
}
