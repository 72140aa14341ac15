package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/demo"
	"github.com/periplus-mesh/periplus/internal/up"
)

// process is a process of the plan.
func (m *mesh) process(name string) up.Process {
	i := slices.IndexFunc(m.plan.Processes, func(p up.Process) bool { return p.Name == name })
	if i < 0 {
		panic("no process " + name)
	}
	return m.plan.Processes[i]
}

// twin runs one more sidecar like the one named, at another address; it runs from the same path, so it is the same
// workload to the authority. Changes are more flags, which win over those of the original.
func (m *mesh) twin(t *testing.T, of, name, address string, changes ...string) func() {
	t.Helper()
	original := m.process(of)
	args := append(slices.Clone(original.Args), "--name", name, "--bind", address, "--admin-address", address+":15014", "--data-dir", filepath.Join(t.TempDir(), name))
	command, _ := spawn(t, m.plan.Binary(original), append(args, changes...)...)
	within(t, 20*time.Second, name+" is ready", func() error { return get("http://" + address + ":15014/ready") })
	return func() {
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

// many sends requests from several callers at once, each after the other's answer, until the time is up.
func many(t *testing.T, proxy, service string, length time.Duration) (results []result) {
	t.Helper()
	client := demo.NewClient(proxy)
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var all sync.WaitGroup
	end := time.Now().Add(length)
	for range 8 {
		all.Go(func() {
			for time.Now().Before(end) {
				r := result{sent: time.Now()}
				r.hop, r.err = demo.Ask(t.Context(), client, service, "/")
				mu.Lock()
				results = append(results, r)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return results
}

// healthOf counts a cluster's endpoints of a service by what the sidecar was told of them.
func (m *mesh) healthOf(t *testing.T, sidecar, service string) map[string]int {
	out := map[string]int{}
	for line := range strings.Lines(read(t, m.admin(sidecar)+"/clusters")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "::")
		_, flags, ok := strings.Cut(rest, "::health_flags::")
		if ok && strings.HasSuffix(name, "|80||"+service+".shop.svc.cluster.local") {
			out[flags]++
		}
	}
	return out
}

// Half of a zone's endpoints are unhealthy: by the overprovisioning factor of 1.4 the zone keeps 70 % and the next
// one gets 30 % (Envoy, "Priority levels").
func TestSharesFollowTheFormula(t *testing.T) {
	running.withoutRetries(t, "catalog")
	var kill []func()
	for i := range 3 {
		kill = append(kill, running.twin(t, "catalog-eu-west-a", fmt.Sprintf("catalog-more-%d", i), fmt.Sprintf("%s.1.%d", prefix, 200+i)))
	}
	running.settle()
	if got := shares(many(t, running.outbound(visitorA), "catalog.shop", time.Second), zone); got["eu-west-a"] != 1 {
		t.Fatalf("with four healthy endpoints: %v", got)
	}
	kill[0]()
	kill[1]()
	time.Sleep(1500 * time.Millisecond) // the news; the endpoints stay listed, unhealthy, for the grace period of 10 s
	t.Logf("endpoints: %v", running.healthOf(t, visitorA, "catalog"))
	results := many(t, running.outbound(visitorA), "catalog.shop", 6*time.Second)
	t.Logf("endpoints: %v", running.healthOf(t, visitorA, "catalog"))
	noneFailed(t, results)
	got := shares(results, zone)
	t.Logf("shares over %d requests: %v", len(results), got)
	if len(results) < 1000 || got["eu-west-a"] < 0.68 || got["eu-west-a"] > 0.72 || got["eu-west-b"] < 0.28 || got["eu-west-b"] > 0.32 {
		t.Errorf("%d requests in %v: %v, want eu-west-a 70 %% and eu-west-b 30 %% within 2 points", len(results), slices.Collect(maps.Keys(got)), got)
	}
	within(t, 10*time.Second, "all in the zone again once the dead are removed", func() error {
		if got := shares(many(t, running.outbound(visitorA), "catalog.shop", 300*time.Millisecond), zone); got["eu-west-a"] != 1 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}
