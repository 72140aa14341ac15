package envoy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/integration/harness"
)

// loads sends steadily from all four clients to both services; the function it returns wants that none failed.
func (w *field) loads(t *testing.T) (noneFailed func()) {
	var all []*harness.Load
	for _, outbound := range []string{w.eastGo.Outbound, w.eastEnvoy.outbound, w.westGo.Outbound, w.westEnvoy.outbound} {
		for _, service := range []string{"goods.shop", "wares.shop"} {
			all = append(all, harness.StartLoad(t, 20, harness.Requests(t, outbound, service)))
		}
	}
	return func() {
		t.Helper()
		for _, l := range all {
			l.NoneFailed(t)
		}
	}
}

// sees waits until an Envoy has, or has not, an endpoint in the cluster of a service.
func (p *proxy) sees(t *testing.T, service, address string, want bool) {
	t.Helper()
	line := fmt.Sprintf("outbound|80||%s.shop.svc.cluster.local::%s::", service, address)
	harness.Eventually(t, 15*time.Second, fmt.Sprintf("%s sees %s: %v", p.spec.name, address, want), func() error {
		if strings.Contains(p.Get("/clusters"), line) != want {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

// figures: the mesh knows from Envoy's own load reports what goes from one region to the other.
func (w *field) figures(t *testing.T) {
	load := harness.StartLoad(t, 40, harness.Requests(t, w.westEnvoy.outbound, "goods.shop"))
	harness.Eventually(t, 15*time.Second, "traffic from west to east", func() error {
		overview, err := w.Client.Mesh.Overview(t.Context(), connect.NewRequest(&pb.OverviewRequest{}))
		if err != nil {
			return err
		}
		for _, cell := range overview.Msg.GetTraffic() {
			if cell.GetSourceRegion() == "west" && cell.GetDestinationRegion() == "east" && cell.GetService().GetName() == "goods" && cell.GetRequestsPerSecond() > 30 {
				t.Logf("%.0f requests a second, %.0f%% errors", cell.GetRequestsPerSecond(), 100*cell.GetErrorRatio())
				return nil
			}
		}
		return fmt.Errorf("traffic: %v", overview.Msg.GetTraffic())
	})
	load.NoneFailed(t)
}

// gateways: an Envoy takes the place of the mesh's own gateway under load, is used by all, and gives it back.
func (w *field) gateways(t *testing.T) {
	done := w.loads(t)
	g := w.start(t, w.east, spec{role: "gateway", name: "east-envoy", zone: "a", host: 33})
	g.content(t, 1)
	announced := w.announce(t, w.east, g)
	w.westEnvoy.sees(t, "goods", g.address+":15443", true)
	w.goGateway.Stop()
	w.westEnvoy.sees(t, "goods", w.east.Host(11)+":15443", false)
	const passed = "tcp.eastwest.downstream_cx_rx_bytes_total"
	before := g.Stats(passed)[passed]
	t.Run("matrix", w.matrix)
	if after := g.Stats(passed)[passed]; after <= before || before == 0 {
		t.Errorf("Envoy as gateway has passed on %d bytes, then %d", before, after)
	}
	g.content(t, 1)
	w.goGateway.Start()
	w.westEnvoy.sees(t, "goods", w.east.Host(11)+":15443", true)
	announced.Stop()
	w.westEnvoy.sees(t, "goods", g.address+":15443", false)
	g.Stop()
	time.Sleep(500 * time.Millisecond)
	done()
}

// changes: endpoints of Envoy sidecars are added, drained and removed under load.
func (w *field) changes(t *testing.T) {
	done := w.loads(t)
	second := w.start(t, w.east, spec{role: "sidecar", name: "wares-2", service: "wares.shop", zone: "a", host: 34, app: w.apps["wares-2"]})
	second.content(t, 2)
	announced := w.announce(t, w.east, second)
	w.eastEnvoy.sees(t, "wares", second.address+":15006", true)
	// From the other network the connections that are open stay where the gateway passed them to.
	for _, outbound := range []string{w.eastGo.Outbound, w.eastEnvoy.outbound} {
		harness.Eventually(t, 10*time.Second, "the second endpoint answers", harness.Answered(outbound, "wares.shop", "wares-2"))
	}
	w.health(t, "draining")
	w.eastEnvoy.sees(t, "wares", w.wares.address+":15006", false)
	for range 20 {
		if err := harness.Answered(w.eastEnvoy.outbound, "wares.shop", "wares-2")(); err != nil {
			t.Errorf("while the first endpoint drains: %v", err)
		}
	}
	w.health(t, "healthy")
	w.eastEnvoy.sees(t, "wares", w.wares.address+":15006", true)
	announced.Stop()
	w.eastEnvoy.sees(t, "wares", second.address+":15006", false)
	second.Stop()
	done()
}

// health changes the first endpoint of wares in the services file.
func (w *field) health(t *testing.T, health string) {
	w.files["wares"][0].health = health
	services(t, w.east, w.files)
}

// failover: west gets an endpoint of its own, which all of west prefers, and which is killed.
func (w *field) failover(t *testing.T) {
	for _, client := range []struct{ name, outbound string }{{"own sidecar", w.westGo.Outbound}, {"Envoy", w.westEnvoy.outbound}} {
		near := w.west.Sidecar(harness.SidecarOptions{Name: "wares-3", Service: "wares.shop", Zone: "a", Host: 60, App: w.apps["wares-2"]})
		harness.Eventually(t, 20*time.Second, "the near endpoint answers", harness.Answered(client.outbound, "wares.shop", "wares-2"))
		for range 20 {
			if err := harness.Answered(client.outbound, "wares.shop", "wares-2")(); err != nil {
				t.Errorf("%s: while there is a near endpoint: %v", client.name, err)
			}
		}
		load := harness.StartLoad(t, 100, harness.Requests(t, client.outbound, "wares.shop"))
		time.Sleep(300 * time.Millisecond)
		near.Kill()
		took := harness.Eventually(t, 20*time.Second, "the far endpoint answers", harness.Answered(client.outbound, "wares.shop", "wares-1"))
		time.Sleep(time.Second)
		t.Logf("%s: the far endpoint answers %s after the near one was killed", client.name, took.Round(time.Millisecond))
		load.NoneFailed(t)
		w.westEnvoy.sees(t, "wares", near.Inbound, false) // its grace period is over
	}
}

// liars: the services file of west names two endpoints for goods: nothing is at one, and at the other a workload that is
// not goods. All of west prefers them, nobody tells better, and every request is answered by the real one further away.
func (w *field) liars(t *testing.T) {
	other := w.west.Sidecar(harness.SidecarOptions{Name: "wares-4", Service: "wares.shop", Zone: "a", Host: 61, App: w.apps["wares-2"]})
	files := west()
	files["goods"] = []endpoint{{"nobody", w.west.Host(99), "a", "healthy", "goods"}, {"impostor", other.Address, "a", "healthy", "goods"}}
	services(t, w.west, files)
	w.westEnvoy.sees(t, "goods", other.Inbound, true)
	for _, outbound := range []string{w.westGo.Outbound, w.westEnvoy.outbound} {
		for range 50 {
			if err := harness.Answered(outbound, "goods.shop", "goods-1")(); err != nil {
				t.Fatalf("%s: %v", outbound, err)
			}
		}
	}
	const refused = "cluster.outbound|80||goods.shop.svc.cluster.local.ssl.fail_verify_san"
	if stats := w.westEnvoy.Stats(`goods.*fail_verify_san`); stats[refused] == 0 {
		t.Errorf("Envoy did not look at who answers: %v", stats)
	}
	services(t, w.west, west())
	w.westEnvoy.sees(t, "goods", other.Inbound, false)
	other.Kill()
}

const policies = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wares, namespace: shop}
spec:
  host: wares
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 100, connectTimeout: 2s}, http: {http1MaxPendingRequests: 100, maxRetries: 7}}
    outlierDetection: {consecutive5xxErrors: 5, interval: 5s, baseEjectionTime: 10s, maxEjectionPercent: 50}
    loadBalancer: {simple: ROUND_ROBIN}
  subsets:
  - name: all
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wares, namespace: shop}
spec:
  hosts: [wares]
  http:
  - match:
    - uri: {regex: "/(very|long|alternatives|of|words|that|compile|to|a|large|program){1,20}"}
      headers: {x-percent: {exact: "100%"}}
    route: [{destination: {host: goods}}]
    headers: {response: {set: {x-discount: "100%"}}}
  - route:
    - {destination: {host: wares, subset: all}, weight: 90}
    - {destination: {host: goods}, weight: 10}
`

// split: a VirtualService sends a tenth elsewhere, whichever kind of proxy follows it.
func (w *field) split(t *testing.T) {
	w.Apply(policies)
	for name, outbound := range map[string]string{"own": w.eastGo.Outbound, "Envoy": w.eastEnvoy.outbound, "far Envoy": w.westEnvoy.outbound} {
		harness.Eventually(t, 10*time.Second, "the split is in force at "+name, harness.Answered(outbound, "wares.shop", "goods-1"))
		const all = 400
		some := 0
		for range all {
			status, body, _, err := harness.Get(outbound, "wares.shop", "/")
			if err != nil || status != 200 {
				t.Fatalf("%s: %d %s %v", name, status, body, err)
			}
			if body == "goods-1" {
				some++
			}
		}
		t.Logf("%s: %d of %d went to the tenth", name, some, all)
		if some < all/10-24 || some > all/10+24 { // four standard deviations
			t.Errorf("%s: %d of %d, want about %d", name, some, all, all/10)
		}
	}
	w.eastEnvoy.content(t, 1)
	w.westEnvoy.content(t, 1)
	w.Periplus("policy", "delete", "VirtualService", "wares", "-n", "shop")
	w.Periplus("policy", "delete", "DestinationRule", "wares", "-n", "shop")
}

const authorization = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: east-only, namespace: shop}
spec:
  action: ALLOW
  rules:
  - from: [{source: {principals: [east.test/ns/shop/sa/visitor]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-private, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/private*]}}]
`

// authorization: both kinds of server refuse the same, to both kinds of client.
func (w *field) authorization(t *testing.T) {
	w.Apply(authorization)
	want := func(outbound, service, path string, want int) func() error {
		return func() error {
			status, body, _, err := harness.Get(outbound, service, path)
			if err != nil || status != want {
				return fmt.Errorf("%d %s %v, want %d", status, strings.TrimSpace(body), err, want)
			}
			return nil
		}
	}
	for _, service := range []string{"goods.shop", "wares.shop"} {
		for name, outbound := range map[string]string{"own": w.westGo.Outbound, "Envoy": w.westEnvoy.outbound} {
			harness.Eventually(t, 10*time.Second, service+" refuses west's "+name, want(outbound, service, "/", 403))
		}
		for name, outbound := range map[string]string{"own": w.eastGo.Outbound, "Envoy": w.eastEnvoy.outbound} {
			harness.Eventually(t, 10*time.Second, service+" refuses /private to east's "+name, want(outbound, service, "/x/..//private/a", 403))
			if err := want(outbound, service, "/public", 200)(); err != nil {
				t.Errorf("%s to east's %s: %v", service, name, err)
			}
		}
	}
	w.wares.content(t, 2)
	w.Periplus("policy", "delete", "AuthorizationPolicy", "east-only", "-n", "shop")
	w.Periplus("policy", "delete", "AuthorizationPolicy", "not-private", "-n", "shop")
	for _, service := range []string{"goods.shop", "wares.shop"} {
		for _, outbound := range []string{w.westGo.Outbound, w.westEnvoy.outbound} {
			harness.Eventually(t, 10*time.Second, "west is let in again", want(outbound, service, "/", 200))
		}
	}
}
