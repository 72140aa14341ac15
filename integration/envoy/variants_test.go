package envoy

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// variants starts an Envoy for each role, variant of xDS, and server: each takes all of its configuration, and nobody
// counts a rejection.
func (w *field) variants(t *testing.T) {
	host := 50
	for _, role := range []string{"sidecar", "gateway"} {
		for _, sotw := range []bool{false, true} {
			for _, from := range []string{"agent", "controller"} {
				host++
				s := spec{role: role, name: fmt.Sprint(role, "-", host), host: host, zone: "a", sotw: sotw}
				listeners := 1
				if role == "sidecar" {
					s.service, s.app, listeners = "wares.shop", w.apps["wares-1"], 2
				}
				server := w.east.AgentAddress
				if from == "controller" {
					s.agent, server = w.east.Host(19)+":9", w.ControllerAddress(0)
				}
				w.east.BinaryOf(s.identity(), realdeps.Path(t, "envoy"))
				t.Run(fmt.Sprintf("%s sotw=%v from %s", role, sotw, from), func(t *testing.T) {
					t.Parallel()
					p := w.start(t, w.east, s)
					p.content(t, listeners)
					if n := p.streams(t)[server]; n < 1 {
						t.Errorf("no stream to the %s at %s: %v", from, server, p.streams(t))
					}
					p.Stop()
				})
			}
		}
	}
}

// streams counts the open requests to each server of xDS.
func (p *proxy) streams(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^periplus_xds::([^:]+:\d+)::rq_active::(\d+)$`).FindAllStringSubmatch(p.Get("/clusters"), -1) {
		out[m[1]], _ = strconv.Atoi(m[2])
	}
	return out
}

// noRejects checks what the servers counted.
func (w *field) noRejects(t *testing.T) {
	t.Helper()
	for _, url := range []string{w.east.AgentAdmin, w.west.AgentAdmin, strings.Replace(w.ControllerAddress(0), ":15012", ":8080", 1)} {
		if n, err := rejects("http://" + url + "/metrics"); n != 0 || err != nil {
			t.Errorf("%s: %d responses were rejected %v", url, n, err)
		}
	}
}

// impostor: who is not the agent that the bootstrap names is told nothing and believed nothing.
func (w *field) impostor(t *testing.T) {
	s := spec{role: "gateway", name: "wary", host: 48, zone: "a"}
	admin := w.east.Host(s.host) + ":15014"
	bootstrap := w.Periplus(append(append([]string{"envoy", "bootstrap"}, s.description(w.east, admin)...), "--trust-domain", "other.test")...)
	path := w.east.File("wary.yaml", bootstrap)
	p := &proxy{Envoy: &realdeps.Envoy{Admin: admin}, spec: s}
	p.Process = realdeps.Run(t, "wary", w.east.BinaryOf("gateway", realdeps.Path(t, "envoy")), nil, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	p.Await(10*time.Second, realdeps.Answers(http.DefaultClient, "http://"+admin+"/stats?filter=none"))
	harness.Eventually(t, 10*time.Second, "the agent is refused", func() error {
		stats := p.Stats(`(fail_verify_san|cds.update_success|periplus_xds.ssl.handshake)`)
		if stats["cluster.periplus_xds.ssl.fail_verify_san"] == 0 || stats["cluster_manager.cds.update_success"] > 0 {
			return fmt.Errorf("%v", stats)
		}
		return nil
	})
	p.Kill()
}

// agentIsGone stops east's agent. Its Envoy goes to the controller, learns from it, and returns.
func (w *field) agentIsGone(t *testing.T) {
	p := w.start(t, w.east, spec{role: "sidecar", name: "visitor-3", service: "visitor.shop", zone: "a", host: 49, args: []string{"--reopen-every", "3s"}})
	p.content(t, 1)
	agent, controller := w.east.AgentAddress, w.ControllerAddress(0)
	at := func(server string) func() error {
		return func() error {
			if n := p.streams(t); n[server] == 0 {
				return fmt.Errorf("streams: %v", n)
			}
			return nil
		}
	}
	harness.Eventually(t, 10*time.Second, "a stream to the agent", at(agent))
	load := harness.StartLoad(t, 50, harness.Requests(t, p.outbound, "wares.shop"))
	w.noRejects(t) // the agent forgets
	w.agents["east"].Kill()
	took := harness.Eventually(t, 20*time.Second, "a stream to the controller", at(controller))
	t.Logf("the controller serves %s after the agent was killed", took.Round(time.Millisecond))
	w.agents["east"].Start()
	w.east.AwaitAgent(w.agents["east"])
	took = harness.Eventually(t, 20*time.Second, "the agent again", func() error {
		if n := p.streams(t); n[agent] == 0 || n[controller] > 1 { // a load report may be there still
			return fmt.Errorf("streams: %v", n)
		}
		return nil
	})
	t.Logf("the agent serves again %s after it was ready (streams last 3 s)", took.Round(time.Millisecond))
	load.NoneFailed(t)
	p.content(t, 1)
	p.Stop()
}
