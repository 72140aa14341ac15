package grpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
)

// One mesh for all; each part leaves east-a and east-b running in zones a and b, and west-a and far-a.
func TestProxyless(t *testing.T) {
	w := newWorld(t)
	s := &scene{world: w}
	s.eastA = w.server(t, w.east, "east-a", "a", "version=v1")
	s.eastB = w.server(t, w.east, "east-b", "b", "version=v2")
	s.agentOnly = startClient(t, "client-agent", w.bootstrap(t, "client-agent", "--agent", eastAgent, "--gateways"), spiffe, serverName)
	s.controllerOnly = startClient(t, "client-controller", w.bootstrap(t, "client-controller", "--controller", w.ControllerAddress(0), "--gateways"), spiffe, serverName)
	s.plain = startClient(t, "client-plain", w.bootstrap(t, "client-plain", "--agent", eastAgent))
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"FollowsTheAgentAndTheController", s.follows}, {"OtherServersAreRefused", s.identity}, {"EndpointsComeAndGo", s.endpoints},
		{"PrioritiesAndFailover", s.priorities}, {"VirtualService", s.virtualService}, {"AgentLost", s.agentLost},
	} {
		if !t.Run(part.name, part.run) {
			break // what follows builds on it
		}
	}
	t.Run("NothingWasRejected", s.noRejects)
}

type scene struct {
	*world
	eastA, eastB   *harness.Sidecar
	agentOnly      *client // asks the agent; sends server names
	controllerOnly *client // asks the controller; sends server names
	plain          *client // asks the agent; as gRPC is without experimental variables
}

// Under each of its names, the service is there, in the client's own zone, and the server knows the client.
func (s *scene) follows(t *testing.T) {
	for name, c := range map[string]*client{"agent": s.agentOnly, "controller": s.controllerOnly, "plain": s.plain} {
		for _, target := range []string{"catalog.shop", "catalog.shop:9090", "catalog", "catalog.shop.svc.cluster.local:9090", "catalog.shop.svc.clusterset.local"} {
			took := harness.Eventually(t, 20*time.Second, name+": "+target, c.answered(target, 20, "east-a"))
			t.Logf("%s: %s answered after %v", name, target, took.Round(time.Millisecond))
		}
		out, err := c.call("catalog.shop", 10)
		if err != nil || out.Callers[s.east.ID("visitor").String()] != 10 {
			t.Errorf("%s: the server saw %v (%v)", name, out.Callers, err)
		}
	}
	out, err := s.agentOnly.call("catalog.shop:80", 1)
	if err != nil || out.failed() != 1 {
		t.Errorf("a port that does not exist: %v, %v", out, err)
	}
}

// Both services are listed at the address of east-a, whose certificate says catalog. Where the mesh says so too, calls
// arrive; where it says pay, the client speaks to nobody.
func (s *scene) identity(t *testing.T) {
	for name, c := range map[string]*client{"agent": s.agentOnly, "controller": s.controllerOnly, "plain": s.plain} {
		harness.Eventually(t, 20*time.Second, name+": the server that is meant", c.answered("mirror.shop", 3, "east-a"))
		out, err := c.call("pay.shop", 2)
		if err != nil || out.failed() != 2 {
			t.Errorf("%s: a server with another identity: %v, %v", name, out, err)
		}
		for message := range out.Errors {
			if !strings.Contains(message, "do not match any of the accepted SANs") {
				t.Errorf("%s: %s", name, message)
			}
		}
	}
}

// What is drained fails nothing; what is killed fails nothing that may be repeated; what comes is used.
func (s *scene) endpoints(t *testing.T) {
	second := s.server(t, s.east, "east-a2", "a", "version=v1")
	both := func(c *client) func() error {
		return func() error {
			out, err := c.call("catalog.shop", 40)
			if err == nil && (out.Answers["east-a"] < 5 || out.Answers["east-a2"] < 5 || out.failed() > 0) {
				err = fmt.Errorf("want both, got %v", out)
			}
			return err
		}
	}
	for name, c := range map[string]*client{"agent": s.agentOnly, "controller": s.controllerOnly} {
		took := harness.Eventually(t, 10*time.Second, name+": the new endpoint", both(c))
		t.Logf("%s: the new endpoint is used after %v", name, took.Round(time.Millisecond))
	}
	for _, end := range []struct {
		how string
		do  func()
	}{{"drained", func() { second.Stop() }}, {"killed", func() { second.Kill() }}} {
		load := harness.StartLoad(t, 100, s.agentOnly.once("catalog.shop"))
		time.Sleep(500 * time.Millisecond)
		end.do()
		harness.Eventually(t, 20*time.Second, "without the one that was "+end.how, s.agentOnly.answered("catalog.shop", 20, "east-a"))
		load.NoneFailed(t)
		if end.how == "drained" {
			second.Start()
			second.AwaitReady()
			harness.Eventually(t, 10*time.Second, "started again", both(s.agentOnly))
		}
	}
}

// Own zone, own cluster, another cluster of the network, another network through its gateway; and back.
func (s *scene) priorities(t *testing.T) {
	west := s.server(t, s.west, "west-a", "a", "version=v1")
	s.far.Gateway("far-gateway", "a")
	far := s.server(t, s.far, "far-a", "a", "version=v1")
	defer func() { west.Stop(); far.Stop() }()
	for _, sidecar := range []*harness.Sidecar{west, far} { // the authority tells it of other trust domains by and by
		harness.Eventually(t, 20*time.Second, "trust in the client's domain", func() error {
			n, err := metric("http://"+sidecar.Admin+"/metrics", "periplus_trust_domains")
			if err == nil && n < 4 {
				err = fmt.Errorf("%v trust domains", n)
			}
			return err
		})
	}
	all := map[string]*client{"agent": s.agentOnly, "controller": s.controllerOnly, "plain": s.plain}
	expect := func(who []string, server string) {
		t.Helper()
		for _, name := range who {
			took := harness.Eventually(t, 30*time.Second, name+": "+server, all[name].answered("catalog.shop", 20, server))
			t.Logf("%s: %s after %v", name, server, took.Round(time.Millisecond))
		}
	}
	able, everybody := []string{"agent", "controller"}, []string{"agent", "controller", "plain"}
	expect(everybody, "east-a")
	s.Apply(failover)
	s.eastA.Kill()
	expect(everybody, "east-b")
	s.eastB.Kill()
	expect(able, "west-a")
	west.Kill()
	expect(able, "far-a")
	// A client that trusts its own domain alone and sends no server name has nobody left.
	if out, err := s.plain.call("catalog.shop", 3); err != nil || out.failed() != 3 {
		t.Errorf("plain: %v, %v", out, err)
	} else {
		t.Log("plain:", out.Errors)
	}
	west.Start()
	expect(able, "west-a")
	s.eastB.Start()
	expect(everybody, "east-b")
	s.eastA.Start()
	expect(everybody, "east-a")
	s.Periplus("policy", "delete", "destinationrule", "catalog", "-n", "shop")
}

const failover = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec:
  host: catalog.shop.svc.cluster.local
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5}
    loadBalancer:
      localityLbSetting:
        failover:
        - {from: eu, to: us}
`

// Weights, a match on a header with a subset, and a timeout.
func (s *scene) virtualService(t *testing.T) {
	s.Apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec:
  host: catalog.shop.svc.cluster.local
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalog, namespace: shop}
spec:
  hosts: [catalog.shop.svc.cluster.local]
  http:
  - match:
    - method: {exact: GET}
    - headers: {user: {exact: tester}}
      withoutHeaders: {production: {exact: "yes"}}
    route:
    - destination: {host: catalog.shop.svc.cluster.local, subset: v2}
  - route:
    - destination: {host: catalog.shop.svc.cluster.local, subset: v1}
      weight: 80
    - destination: {host: catalog.shop.svc.cluster.local, subset: v2}
      weight: 20
`)
	const n = 500
	for name, c := range map[string]*client{"agent": s.agentOnly, "controller": s.controllerOnly} {
		harness.Eventually(t, 20*time.Second, name+": the weights", func() error {
			out, err := c.call("catalog.shop", n)
			if err != nil || out.failed() > 0 {
				return fmt.Errorf("%v, %w", out, err)
			}
			// 20 % of 500 with a standard deviation of 9
			if got := float64(out.Answers["east-b"]); math.Abs(got-0.2*n) > 36 {
				return fmt.Errorf("want 20 %% from v2, got %v", out)
			}
			return nil
		})
		for _, test := range []struct {
			headers []string
			only    bool
		}{{[]string{"user", "tester"}, true}, {[]string{"user", "tester", "production", "no"}, true}, {[]string{"user", "tester", "production", "yes"}, false}} {
			out, err := c.call("catalog.shop", 60, test.headers...)
			if err != nil || out.failed() > 0 || (out.Answers["east-b"] == 60) != test.only {
				t.Errorf("%s: %v: %v, %v", name, test.headers, out, err)
			}
		}
	}
	for _, kind := range []string{"virtualservice", "destinationrule"} {
		s.Periplus("policy", "delete", kind, "catalog", "-n", "shop")
	}
	harness.Eventually(t, 20*time.Second, "without policies", s.agentOnly.answered("catalog.shop", 20, "east-a"))
	harness.Eventually(t, 20*time.Second, "without policies", s.controllerOnly.answered("catalog.shop", 20, "east-a"))
}

// With the agent gone, calls go on with what is known. A target that is not known yet comes from the controller and
// follows it (gRFC A71); grpc-go has an xDS client for each target, so the others keep what they have. When the agent
// is back, all follow it.
func (s *scene) agentLost(t *testing.T) {
	c := startClient(t, "client-both", s.bootstrap(t, "client-both", "--agent", eastAgent, "--controller", s.ControllerAddress(0), "--gateways"), spiffe, serverName)
	const known, unknown = "catalog.shop", "catalog.shop.svc:9090"
	controllerBefore := s.streams(t, s.MetricsURLs[0])
	harness.Eventually(t, 20*time.Second, "a call", c.answered(known, 10, "east-a"))
	agentBefore := s.streams(t, "http://"+s.east.AgentAdmin+"/metrics")
	if now := s.streams(t, s.MetricsURLs[0]); now != controllerBefore {
		t.Errorf("%v streams at the controller, %v before the client came: it did not go to the agent", now, controllerBefore)
	}
	load := harness.StartLoad(t, 50, c.once(known))
	s.agent.Kill()
	time.Sleep(2 * time.Second)
	for name, one := range map[string]*client{"both": c, "agent alone": s.agentOnly} {
		if out, err := one.call(known, 20); err != nil || out.failed() > 0 {
			t.Errorf("%s: without the agent: %v, %v", name, out, err)
		}
	}
	if out, err := s.agentOnly.call(unknown, 1); err != nil || out.failed() != 1 {
		t.Errorf("a new target without anybody to ask: %v, %v", out, err)
	}
	took := harness.Eventually(t, 30*time.Second, "a target that was not known", c.answered(unknown, 10, "east-a"))
	t.Log("the controller answered after", took.Round(time.Millisecond))
	s.Apply(redirect)
	took = harness.Eventually(t, 30*time.Second, "a change without the agent", c.answered(unknown, 10, "east-b"))
	t.Log("the controller's change came after", took.Round(time.Millisecond))
	if out, err := c.call(known, 10); err != nil || out.Answers["east-a"] != 10 {
		t.Errorf("a target whose source is gone: want what it had, got %v, %v", out, err)
	}
	load.NoneFailed(t) // before routes change: grpc-go may fail a call that is on its way then ("unknown cluster selected")
	s.agent.Start()
	s.east.AwaitAgent(s.agent)
	took = harness.Eventually(t, 60*time.Second, "everybody returns to the agent", func() error {
		a, g := s.streams(t, "http://"+s.east.AgentAdmin+"/metrics"), s.streams(t, s.MetricsURLs[0])
		if a != agentBefore+2 || g != controllerBefore { // two targets are new
			return fmt.Errorf("%v streams at the agent, there were %v; %v at the controller, there were %v", a, agentBefore, g, controllerBefore)
		}
		return errors.Join(c.answered(known, 10, "east-b")(), c.answered(unknown, 10, "east-b")())
	})
	t.Log("back at the agent after", took.Round(time.Millisecond))
	s.Periplus("policy", "delete", "virtualservice", "catalog", "-n", "shop")
	s.Periplus("policy", "delete", "destinationrule", "catalog", "-n", "shop")
	harness.Eventually(t, 20*time.Second, "the first way", c.answered(known, 20, "east-a"))
}

const redirect = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec:
  host: catalog.shop.svc.cluster.local
  subsets:
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalog, namespace: shop}
spec:
  hosts: [catalog.shop.svc.cluster.local]
  http:
  - route:
    - destination: {host: catalog.shop.svc.cluster.local, subset: v2}
`

func (s *scene) streams(t *testing.T, url string) float64 {
	t.Helper()
	n, err := metric(url, "pilot_xds")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// noRejects asks those who would know: every xDS server.
func (s *scene) noRejects(t *testing.T) {
	servers := 0
	for _, url := range s.MetricsURLs {
		rejects, err := metric(url, "pilot_total_xds_rejects")
		if err != nil {
			continue // a proxy
		}
		servers++
		if rejects != 0 {
			t.Errorf("%s: clients rejected %v responses", url, rejects)
		}
	}
	if servers != 4 {
		t.Errorf("%d xDS servers, want a controller and three agents", servers)
	}
	for _, c := range []*client{s.agentOnly, s.controllerOnly, s.plain} {
		if log := c.Log(); strings.Contains(log, "NACK") {
			t.Error("a client's log has a NACK:\n" + log)
		}
	}
}

// once is a load of single calls.
func (c *client) once(target string) func(context.Context) error {
	return func(context.Context) error {
		out, err := c.call(target, 1)
		for message := range out.Errors {
			err = errors.Join(err, errors.New(message))
		}
		return err
	}
}
