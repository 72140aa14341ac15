package e2e

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/demo"
)

const subsets = "  host: catalog\n  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}}\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: v2}}"

func TestWeightsOverSubsets(t *testing.T) {
	running.withPolicy(t, "DestinationRule", "catalog", subsets)
	running.withPolicy(t, "VirtualService", "catalog", `  hosts: [catalog]
  http:
  - route:
    - {destination: {host: catalog, subset: v1}, weight: 90}
    - {destination: {host: catalog, subset: v2}, weight: 10}`)
	running.settle()
	const requests, workers = 10_000, 8
	client := demo.NewClient(running.outbound(visitorA))
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	count := map[string]int{}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range requests / workers {
				hop, err := demo.Ask(t.Context(), client, "catalog.shop", "/")
				mu.Lock()
				if err != nil {
					t.Error(err)
				} else {
					count[hop.Zone[len(hop.Zone)-1:]]++ // zone a runs v1, zone b runs v2
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	share := 100 * float64(count["a"]) / requests
	t.Logf("v1 got %.2f %%", share)
	if share < 88 || share > 92 {
		t.Errorf("v1 got %.2f %%, want 90 within 2 points", share)
	}
}

func TestMatchesTimeoutsAndRetries(t *testing.T) {
	running.withPolicy(t, "VirtualService", "catalog", `  hosts: [catalog]
  http:
  - name: slow
    match: [{uri: {prefix: /slow}, headers: {x-hurry: {exact: "yes"}}}]
    route: [{destination: {host: catalog}}]
    timeout: 300ms
    retries: {attempts: 0}
  - name: flaky
    match: [{uri: {exact: /flaky}, method: {exact: GET}}]
    route: [{destination: {host: catalog}}]
    retries: {attempts: 3, retryOn: 5xx}
    headers: {request: {set: {x-route: flaky}}, response: {set: {x-answered: "by-flaky-route"}}}
  - route: [{destination: {host: catalog}}]
    retries: {attempts: 0}`)
	running.settle()
	proxy := running.outbound(visitorA)

	began := time.Now()
	status, body, _ := ask(t, proxy, "catalog.shop", "/slow?ms=2000", func(r *http.Request) { r.Header.Set("X-Hurry", "yes") })
	if took := time.Since(began); status != http.StatusGatewayTimeout || took < 300*time.Millisecond || took > time.Second {
		t.Errorf("timeout of 300ms: status %d after %v: %s", status, took, body)
	}
	if status, body, _ := ask(t, proxy, "catalog.shop", "/slow?ms=500", nil); status != http.StatusOK {
		t.Errorf("without the header there is no timeout: %d %s", status, body)
	}
	status, body, header := ask(t, proxy, "catalog.shop", "/flaky?fail=3", nil)
	if status != http.StatusOK || header.Get("X-Answered") != "by-flaky-route" {
		t.Errorf("three failures, three retries: status %d %s", status, body)
	}
	if status, body, _ := ask(t, proxy, "catalog.shop", "/flaky?fail=4", nil); status != http.StatusServiceUnavailable {
		t.Errorf("four failures, three retries: status %d %s", status, body)
	}
	if status, _, _ := ask(t, proxy, "catalog.shop", "/other-flaky?fail=1", nil); status != http.StatusServiceUnavailable {
		t.Errorf("one failure, no retries: status %d", status)
	}
}

const failoverRule = `  host: catalog
  trafficPolicy:
    loadBalancer:
      localityLbSetting:
        failover: [{from: eu-west, to: ap-south}]
    outlierDetection: {consecutive5xxErrors: 5}`

func TestFailoverRule(t *testing.T) {
	running.withPolicy(t, "DestinationRule", "catalog", failoverRule)
	running.act(t, "stop", "catalog-eu-west-a", "catalog-eu-west-b")
	time.Sleep(2 * time.Second)
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(3 * time.Second)
	results := l.stop()
	noneFailed(t, results)
	near(t, results, region, map[string]float64{"ap-south": 1})
}

func TestAuthorization(t *testing.T) {
	proxy := running.outbound(visitorA)
	t.Run("deny by SPIFFE ID", func(t *testing.T) {
		open := running.openTCP(t)
		running.withPolicy(t, "AuthorizationPolicy", "deny-visitors", `  selector: {matchLabels: {app: inventory}}
  action: DENY
  rules: [{from: [{source: {principals: ["eu-west.mesh/ns/shop/sa/visitor"]}}]}]`)
		running.settle()
		if status, body, _ := ask(t, proxy, "inventory.shop", "/", nil); status != http.StatusForbidden || !strings.Contains(body, "RBAC: access denied") {
			t.Errorf("the visitor got %d %s", status, body)
		}
		if n, err := open.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the visitor's TCP connection, which was open before the policy: %d bytes, %v", n, err)
		}
		if _, err := echoed(t.Context(), "hello"); err == nil {
			t.Error("the visitor opened another TCP connection")
		}
		if status, body, _ := ask(t, proxy, "catalog.shop", "/", nil); status != http.StatusOK {
			t.Errorf("catalog, which may ask inventory, got %d %s", status, body)
		}
	})
	t.Run("an allow-list refuses all others", func(t *testing.T) {
		running.withPolicy(t, "AuthorizationPolicy", "only-catalog", `  selector: {matchLabels: {app: inventory}}
  action: ALLOW
  rules: [{from: [{source: {principals: ["*/ns/shop/sa/catalog"]}}], to: [{operation: {methods: [GET]}}]}]`)
		running.settle()
		for _, other := range []string{visitorA, "visitor-eu-west-b", "storefront-eu-west-a", "inventory-eu-west-b"} {
			if status, body, _ := ask(t, running.outbound(other), "inventory.shop", "/", nil); status != http.StatusForbidden {
				t.Errorf("%s got %d %s", other, status, body)
			}
		}
		if status, body, _ := ask(t, proxy, "catalog.shop", "/", nil); status != http.StatusOK {
			t.Errorf("catalog got %d %s", status, body)
		}
	})
	running.settle()
	if status, _, _ := ask(t, proxy, "inventory.shop", "/", nil); status != http.StatusOK {
		t.Errorf("after the policies are gone the visitor gets %d", status)
	}
}

func TestBadPolicyIsRefusedAndChangesNothing(t *testing.T) {
	apply := exec.Command(running.binary, "policy", "apply", "-f", "-", "--context", "up")
	apply.Stdin = strings.NewReader("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad, namespace: shop}\nspec:\n  hosts: [catalog]\n  http:\n  - route: [{destination: {host: catalog}}]\n    fault: {abort: {httpStatus: 500}}\n")
	output, err := apply.CombinedOutput()
	if err == nil || apply.ProcessState.ExitCode() != 65 {
		t.Errorf("exit code %d, want 65", apply.ProcessState.ExitCode())
	}
	for _, want := range []string{"<stdin>:8", "spec.http[0].fault", "not supported"} {
		if !strings.Contains(string(output), want) {
			t.Errorf("%q does not name %q", output, want)
		}
	}
	get, err := exec.Command(running.binary, "policy", "get", "-o", "name").CombinedOutput()
	if err != nil || strings.Contains(string(get), "shop/bad") {
		t.Errorf("policies now: %s %v", get, err)
	}
}

// A policy by hand: applied from a file, listed, changed, with a history that names who did it, and deleted.
func TestPolicyCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	document := func(policy string) {
		t.Helper()
		text := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: by-hand, namespace: shop}\nspec: {host: storefront, trafficPolicy: {loadBalancer: {simple: " + policy + "}}}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says := func(want []string, args ...string) {
		t.Helper()
		stdout, stderr, code := run(t, args...)
		for _, text := range want {
			if code != 0 || !strings.Contains(stdout, text) {
				t.Errorf("%v: exit code %d, want %q in\n%s%s", args, code, text, stdout, stderr)
			}
		}
	}
	t.Cleanup(func() { run(t, "policy", "delete", "DestinationRule", "by-hand", "-n", "shop") })
	document("ROUND_ROBIN")
	says([]string{"by-hand"}, "policy", "apply", "-f", file)
	first, err := running.policyNow(t.Context(), "DestinationRule", "by-hand")
	if err != nil || first == "" {
		t.Fatalf("applied: %q %v", first, err)
	}
	document("LEAST_REQUEST")
	says([]string{"by-hand"}, "policy", "apply", "-f", file)
	second, err := running.policyNow(t.Context(), "DestinationRule", "by-hand")
	if err != nil || second == first {
		t.Errorf("changed: %q, before %q %v", second, first, err)
	}
	says([]string{"by-hand", "LEAST_REQUEST"}, "policy", "get", "DestinationRule", "by-hand", "-n", "shop", "-o", "yaml")
	says([]string{"by-hand", "LEAST_REQUEST"}, "policy", "get", "dr/by-hand", "-n", "shop", "-o", "yaml")
	says([]string{"by-hand"}, "__complete", "policy", "get", "DestinationRule", "by")
	says([]string{"by-hand"}, "policy", "delete", "DestinationRule", "by-hand", "-n", "shop")
	if now, err := running.policyNow(t.Context(), "DestinationRule", "by-hand"); err != nil || now != "" {
		t.Errorf("deleted: %q %v", now, err)
	}
	stdout, stderr, code := run(t, "policy", "history", "DestinationRule", "by-hand", "-n", "shop", "-o", "wide")
	if rows := strings.Count(stdout, "by-hand"); code != 0 || rows != 3 || !strings.Contains(stdout, first[:8]) || !strings.Contains(stdout, "operator") {
		t.Errorf("history: exit code %d, %d rows, want 3 with author and digest %s: %s%s", code, rows, first[:8], stdout, stderr)
	}
}
