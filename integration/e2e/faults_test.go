package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/cli"
)

const (
	visitorA = "visitor-eu-west-a"
	far      = `spiffe://(?:us-east|ap-south)\.mesh/ns/shop/sa/catalog`
)

// policyNow is the digest of a policy, "" if it is not there.
func (m *mesh) policyNow(ctx context.Context, kind, name string) (string, error) {
	response, err := m.client.Policies.GetPolicies(ctx, connect.NewRequest(&pb.GetPoliciesRequest{Kind: kind, Namespace: "shop", Name: name}))
	if err != nil || len(response.Msg.GetItems()) != 1 {
		return "", err
	}
	return response.Msg.GetItems()[0].GetDigest(), nil
}

func TestLeaderKilled(t *testing.T) {
	leader, err := running.leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	running.withoutRetries(t, "catalog")
	running.withPolicy(t, "DestinationRule", "leader", "  host: storefront")
	old, err := running.policyNow(t.Context(), "DestinationRule", "leader")
	if err != nil || old == "" {
		t.Fatalf("the policy before: %q %v", old, err)
	}
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	killed := time.Now()
	running.act(t, "kill", leader)
	took := withinOf(t, killed, 3*time.Second, "a write after the leader's death", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		return running.tryApply(ctx, "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: leader, namespace: shop}\nspec: {host: storefront, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}\n")
	})
	t.Logf("the next write succeeded after %v", took)
	if now, err := running.policyNow(t.Context(), "DestinationRule", "leader"); err != nil || now == old || now == "" {
		t.Errorf("the write is not there: %q, before %q (%v)", now, old, err)
	}
	if now, err := running.leader(t.Context()); err != nil || now == leader {
		t.Errorf("the leader is %q (%v), and %s was killed", now, err, leader)
	}
	time.Sleep(2 * time.Second)
	noneFailed(t, l.stop())
}

// Whoever asks a controller while it starts gets everything or an error, and never that there is nothing.
func TestStartingControllerShowsAllOrNothing(t *testing.T) {
	const name = "controller-eu-west"
	running.act(t, "kill", name)
	api := cli.NewClient(http.DefaultClient, running.admin(name))
	started := make(chan error, 1)
	go func() { started <- running.control.Act(context.Background(), "start", name) }()
	within(t, 20*time.Second, "an answer", func() error {
		response, err := api.Clusters.ListClusters(t.Context(), connect.NewRequest(&pb.ListClustersRequest{}))
		if err == nil && len(response.Msg.GetItems()) != 3 {
			t.Errorf("the first answer has %d clusters", len(response.Msg.GetItems()))
		}
		return err
	})
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// The controllers stay away until every certificate has been renewed without them.
func TestAllControllersKilled(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	time.Sleep(time.Second)
	certificate := read(t, running.admin(visitorA)+"/certs")
	running.act(t, "kill", "controller-eu-west", "controller-us-east", "controller-ap-south")
	time.Sleep(3 * time.Second)

	// An agent that is killed and started meanwhile serves from its disk ...
	running.act(t, "kill", "agent-eu-west")
	time.Sleep(500 * time.Millisecond)
	running.restore(t, "agent-eu-west")
	// ... to a sidecar that never ran before, with nothing on its own disk: it asks ...
	if err := os.RemoveAll(running.plan.Dir + "/proxy/visitor-eu-west-b"); err != nil {
		t.Fatal(err)
	}
	running.act(t, "kill", "visitor-eu-west-b")
	running.restore(t, "visitor-eu-west-b")
	if status, body, _ := ask(t, running.outbound("visitor-eu-west-b"), "catalog.shop", "/", nil); status != 200 {
		t.Errorf("a new sidecar cannot reach catalog: %d %s", status, body)
	}
	// ... and another, of an endpoint that nobody ever heard of, is asked.
	address := prefix + ".1.220"
	running.twin(t, "catalog-eu-west-a", "catalog-late", address)
	within(t, 10*time.Second, "the new endpoint serves", func() error {
		if counted(t, "http://"+address+":15014/stats/prometheus", `istio_requests_total\{[^}]*reporter="destination"[^}]*response_code="200"[^}]*\}`) < 10 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	within(t, time.Minute, "a new certificate", func() error {
		if read(t, running.admin(visitorA)+"/certs") == certificate {
			return fmt.Errorf("still the old one")
		}
		return nil
	})
	time.Sleep(2 * time.Second)
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
	// A change still arrives, through a controller.
	changed := time.Now()
	running.withPolicy(t, "VirtualService", "inventory-marked", "  hosts: [inventory]\n  http:\n  - route: [{destination: {host: inventory}}]\n    headers: {response: {set: {x-marked: by-policy}}}")
	marked := func() error {
		if status, _, header := ask(t, running.outbound(visitorA), "inventory.shop", "/", nil); header.Get("X-Marked") != "by-policy" {
			return fmt.Errorf("status %d, not marked", status)
		}
		return nil
	}
	took := withinOf(t, changed, 5*time.Second, "a change while the agent is away", marked)
	t.Logf("the change arrived after %v", took)
	preferred := func() float64 { return value(t, visitorA, "periplus_ads_client_preferred") }
	if value(t, visitorA, "periplus_ads_client_connected") != 1 || preferred() != 0 {
		t.Error("the sidecar does not follow a controller")
	}
	running.settle()
	received := value(t, visitorA, "periplus_ads_client_resources_total")
	// Back from a disk that has not seen the change, the agent neither takes it back nor tells it anew.
	running.restore(t, "agent-eu-west")
	within(t, 20*time.Second, "the agent is followed again", func() error {
		if err := marked(); err != nil {
			t.Fatalf("the agent is back, and the change is gone: %v", err)
		}
		if preferred() != 1 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := marked(); err != nil {
			t.Fatalf("the agent is followed, and the change is gone: %v", err)
		}
	}
	if now := value(t, visitorA, "periplus_ads_client_resources_total"); now != received {
		t.Errorf("%v resources that were known were sent when the agent was back", now-received)
	}
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
			passed := value(t, "gateway-us-east-a", "periplus_gateway_received_bytes_total")
			time.Sleep(2 * time.Second)
			if value(t, "gateway-us-east-a", "periplus_gateway_received_bytes_total") == passed {
				t.Error("no traffic goes through the gateway that ends")
			}
			ended := time.Now()
			running.act(t, how, "gateway-us-east-a")
			time.Sleep(5 * time.Second)
			results := l.stop()
			near(t, results, region, map[string]float64{"us-east": 1})
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

// A plain kill by pid, as a person would do it, is seen as a failure and the mesh goes on; and so does the command.
func TestPlainKill(t *testing.T) {
	const name = "inventory-us-east-a"
	t.Cleanup(func() { running.restore(t, name) })
	is := func(state string) {
		t.Helper()
		within(t, 3*time.Second, name+" is "+state, func() error {
			stdout, stderr, code := run(t, "up", "status", "--dir", running.dir)
			if code != 0 || !regexp.MustCompile(`(?m)^`+name+`\s+`+state+`\s`).MatchString(stdout) {
				return fmt.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			return nil
		})
	}
	pid := running.pids(t)[name]
	if pid == 0 {
		t.Fatalf("%s does not run", name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	is("failed")
	for _, step := range []struct{ action, state string }{{"start", "running"}, {"kill", "stopped"}, {"start", "running"}, {"stop", "stopped"}} {
		if stdout, stderr, code := run(t, "up", step.action, name, "--dir", running.dir); code != 0 {
			t.Errorf("up %s: exit code %d: %s%s", step.action, code, stdout, stderr)
		}
		is(step.state)
	}
	if _, stderr, code := run(t, "up", "kill", "nobody", "--dir", running.dir); code != 65 || !strings.Contains(stderr, "up status") {
		t.Errorf("a process that there is not: exit code %d: %s", code, stderr)
	}
}
