package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	visitorA = "visitor-eu-west-a"
	far      = `spiffe://(us-east|ap-south)\.mesh/ns/shop/sa/catalog`
)

func TestHealthyTrafficStaysInItsZone(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(5 * time.Second)
	results := l.stop()
	noneFailed(t, results)
	if got := shares(results, zone); got["eu-west-a"] != 1 {
		t.Errorf("shares %v, want all in eu-west-a", got)
	}
}

func TestEndpointDrained(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(2 * time.Second)
	running.act(t, "stop", "catalog-eu-west-a")
	drained := time.Now()
	time.Sleep(2 * time.Second)
	running.restore(t, "catalog-eu-west-a")
	time.Sleep(4 * time.Second)
	results := l.stop()
	noneFailed(t, results)
	between := shares(since(results, drained), zone)
	if between["eu-west-b"] == 0 {
		t.Errorf("nothing went to the other zone: %v", between)
	}
	if back := shares(since(results, time.Now().Add(-time.Second)), zone); back["eu-west-a"] < 0.99 {
		t.Errorf("traffic did not come back: %v", back)
	}
}

func TestEndpointKilled(t *testing.T) {
	t.Run("without retries", func(t *testing.T) {
		running.withoutRetries(t, "catalog")
		l := startLoad(t, running.outbound(visitorA), "catalog.shop")
		time.Sleep(2 * time.Second)
		killed := time.Now()
		running.act(t, "kill", "catalog-eu-west-a")
		time.Sleep(3 * time.Second)
		results := l.stop()
		bad := failed(results)
		t.Logf("%d of %d requests failed", len(bad), len(results))
		if late := failed(since(results, killed.Add(time.Second))); len(late) > 0 {
			t.Errorf("%d requests sent more than 1 s later failed: %v", len(late), late[0].err)
		}
		for _, r := range bad {
			if r.done.Before(killed.Add(-50 * time.Millisecond)) {
				t.Errorf("a request failed before the kill: %v", r.err)
			}
		}
		// Until the news arrives a request may still be sent there; what is bounded is how many.
		if len(bad) > loadRate/10 {
			t.Errorf("%d requests failed, want at most those in flight", len(bad))
		}
	})
	t.Run("with the default retries", func(t *testing.T) {
		running.settle()
		l := startLoad(t, running.outbound(visitorA), "catalog.shop")
		time.Sleep(2 * time.Second)
		running.act(t, "kill", "catalog-eu-west-a")
		time.Sleep(3 * time.Second)
		noneFailed(t, l.stop())
	})
	t.Run("with the default retries and many requests in flight", func(t *testing.T) {
		running.settle()
		l := startLoad(t, running.outbound(visitorA), "catalog.shop")
		time.Sleep(time.Second)
		running.act(t, "pause", "catalog-eu-west-a") // what a busy machine does to it, too
		time.Sleep(300 * time.Millisecond)
		running.act(t, "kill", "catalog-eu-west-a")
		time.Sleep(3 * time.Second)
		results := l.stop()
		noneFailed(t, results)
		if slow := slower(results, 100*time.Millisecond); slow < 20 {
			t.Errorf("%d requests were in flight on the endpoint when it was killed: too few to show anything", slow)
		}
	})
}

// slower counts the results that took longer.
func slower(results []result, than time.Duration) (n int) {
	for _, r := range results {
		if r.done.Sub(r.sent) > than {
			n++
		}
	}
	return n
}

func TestAllLocalEndpointsKilled(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	running.act(t, "kill", "catalog-eu-west-a", "catalog-eu-west-b")
	killed := time.Now()
	time.Sleep(7 * time.Second)
	during := time.Now()
	running.restore(t, "catalog-eu-west-a")
	running.restore(t, "catalog-eu-west-b")
	time.Sleep(5 * time.Second)
	results := l.stop()
	if late := failed(since(results, killed.Add(5*time.Second))); len(late) > 0 {
		t.Errorf("%d requests sent more than 5 s later failed: %v", len(late), late[0].err)
	}
	crossed := since(results, killed.Add(5*time.Second))
	for i, r := range crossed {
		if r.sent.After(during) {
			crossed = crossed[:i]
			break
		}
	}
	if got := shares(crossed, region); got["eu-west"] != 0 || len(got) == 0 {
		t.Errorf("while the region had none: %v", got)
	}
	if got := shares(since(results, time.Now().Add(-time.Second)), region); got["eu-west"] < 0.99 {
		t.Errorf("after the return: %v", got)
	}
	for _, r := range crossed {
		if r.hop != nil && r.hop.Client != "spiffe://eu-west.mesh/ns/shop/sa/visitor" {
			t.Fatalf("the far workload sees %q as its client: mTLS is not end to end", r.hop.Client)
		}
	}
	if stats := read(t, running.admin(visitorA)+"/stats/prometheus"); !regexp.MustCompile(`destination_principal="` + far).MatchString(stats) {
		t.Error("the client's sidecar did not see the far workload's own identity")
	}
}

func TestLeaderKilled(t *testing.T) {
	leader, err := running.leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	running.act(t, "kill", leader)
	took := within(t, 3*time.Second, "a write after the leader's death", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		return running.tryApply(ctx, fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: leader, namespace: shop, labels: {at: \"%d\"}}\nspec: {host: storefront}\n", time.Now().UnixNano()))
	})
	t.Logf("the next write succeeded after %v", took)
	time.Sleep(2 * time.Second)
	noneFailed(t, l.stop())
}

func TestAllControllersKilled(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	running.act(t, "kill", "controller-eu-west", "controller-us-east", "controller-ap-south")
	time.Sleep(3 * time.Second)

	// An agent that is killed and started meanwhile serves from its disk ...
	running.act(t, "kill", "agent-eu-west")
	time.Sleep(500 * time.Millisecond)
	running.restore(t, "agent-eu-west")
	// ... to a sidecar that never ran before, with nothing on its own disk.
	if err := os.RemoveAll(running.plan.Dir + "/proxy/visitor-eu-west-b"); err != nil {
		t.Fatal(err)
	}
	running.act(t, "kill", "visitor-eu-west-b")
	running.restore(t, "visitor-eu-west-b")
	if status, body, _ := ask(t, running.outbound("visitor-eu-west-b"), "catalog.shop", "/", nil); status != 200 {
		t.Errorf("a new sidecar cannot reach catalog: %d %s", status, body)
	}
	time.Sleep(5 * time.Second)
	noneFailed(t, l.stop())
	for _, name := range []string{"controller-eu-west", "controller-us-east", "controller-ap-south"} {
		running.act(t, "start", name) // none is ready alone: it takes a majority
	}
	within(t, 15*time.Second, "a leader again", func() error { _, err := running.leader(t.Context()); return err })
}

func TestAgentKilled(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	running.act(t, "kill", "agent-eu-west")
	time.Sleep(time.Second)
	// A change elsewhere still arrives, through a controller: a policy that sends everything to a dead end.
	running.withPolicy(t, "VirtualService", "inventory-marked", "  hosts: [inventory]\n  http:\n  - route: [{destination: {host: inventory}}]\n    headers: {response: {set: {x-marked: by-policy}}}")
	took := within(t, 5*time.Second, "a change while the agent is away", func() error {
		if _, _, header := ask(t, running.outbound(visitorA), "inventory.shop", "/", nil); header.Get("X-Marked") != "by-policy" {
			return fmt.Errorf("not there yet")
		}
		return nil
	})
	t.Logf("the change arrived after %v", took)
	running.restore(t, "agent-eu-west")
	time.Sleep(3 * time.Second)
	noneFailed(t, l.stop())
}

func TestGateway(t *testing.T) {
	running.withoutRetries(t, "catalog")
	running.act(t, "kill", "catalog-eu-west-a", "catalog-eu-west-b")
	running.act(t, "stop", "catalog-ap-south-a", "catalog-ap-south-b") // one region is left
	time.Sleep(5 * time.Second)
	for _, how := range []string{"kill", "stop"} {
		t.Run(how, func(t *testing.T) {
			l := startLoad(t, running.outbound(visitorA), "catalog.shop")
			time.Sleep(2 * time.Second)
			ended := time.Now()
			running.act(t, how, "gateway-us-east-a")
			time.Sleep(5 * time.Second)
			results := l.stop()
			if got := shares(results, region); got["us-east"] != 1 {
				t.Errorf("shares %v, want all in us-east", got)
			}
			if how == "stop" {
				noneFailed(t, results)
				return
			}
			bad := failed(results)
			t.Logf("%d of %d requests failed", len(bad), len(results))
			if len(bad)*100 > len(results) {
				t.Errorf("%d of %d requests failed, more than 1 %%: %v", len(bad), len(results), bad[0].err)
			}
			if late := failed(since(results, ended.Add(2*time.Second))); len(late) > 0 {
				t.Errorf("%d requests failed more than 2 s later: %v", len(late), late[0].err)
			}
		})
	}
}

// Certificates of a minute rotate under traffic, and a pause of the authority loses nothing.
func TestRotationUnderTraffic(t *testing.T) {
	running.withoutRetries(t, "catalog")
	before := read(t, running.admin(visitorA)+"/certs")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	within(t, 45*time.Second, "a new certificate", func() error {
		if read(t, running.admin(visitorA)+"/certs") == before {
			return fmt.Errorf("still the old one")
		}
		return nil
	})
	time.Sleep(time.Second)
	noneFailed(t, l.stop())
}

// A plain kill by pid, as a person would do it, is seen as a failure and the mesh goes on.
func TestPlainKill(t *testing.T) {
	report, err := running.control.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Processes {
		if p.Name == "inventory-us-east-a" {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { running.restore(t, "inventory-us-east-a") })
	within(t, 2*time.Second, "the death is seen", func() error {
		output, err := exec.Command(running.binary, "up", "status", "--dir", running.dir).CombinedOutput()
		if err != nil || !regexp.MustCompile(`inventory-us-east-a\s+failed`).Match(output) {
			return fmt.Errorf("%w %s", err, strings.Split(string(output), "\n")[0])
		}
		return nil
	})
}
