package spire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// world is two clusters on one network, each with a SPIRE of its own. East's agent is beside its SPIRE server and uses
// the socket; its server has a bundle endpoint. West's agent uses the server's address, and tells of an endpoint that
// nobody can reach.
type world struct {
	*harness.Mesh
	east, west       side
	legacy           string // address of an endpoint of legacy.shop in east, which the test itself serves
	catalog, visitor *harness.Sidecar
	unreachable      string // URL
}

type side struct {
	*harness.Cluster
	spire *realdeps.SPIRE
	agent *realdeps.Process
}

// TestSPIRE is everything.
func TestSPIRE(t *testing.T) {
	w := &world{unreachable: "https://127.42.99.1:1"}
	w.east.spire = realdeps.StartSPIRE(t, realdeps.SPIREOptions{TrustDomain: "east.test", BundleEndpoint: true})
	w.west.spire = realdeps.StartSPIRE(t, realdeps.SPIREOptions{TrustDomain: "west.test"})
	w.Mesh = harness.New(t, harness.Options{Prefix: "127.42"})
	for _, s := range []struct {
		*side
		name string
	}{{&w.east, "east"}, {&w.west, "west"}} {
		s.Cluster = w.Cluster(harness.ClusterOptions{Name: s.name, Network: "shared"})
		s.UseSPIRE(s.spire)
	}
	w.legacy = w.east.Host(200)
	w.startAgents(t)
	w.catalog = w.east.Sidecar(harness.SidecarOptions{
		Name: "catalog-1", Service: "catalog.shop", Zone: "a", App: w.App(t, "catalog-1"),
	})
	w.visitor = w.west.Sidecar(harness.SidecarOptions{
		Name: "visitor-1", Service: "visitor.shop", Zone: "a", App: w.App(t, "visitor-1"),
	})
	took := harness.Eventually(t, 20*time.Second, "requests are answered both ways", func() error {
		return errors.Join(harness.Answered(w.visitor.Outbound, "catalog.shop", "catalog-1")(), harness.Answered(w.catalog.Outbound, "visitor.shop", "visitor-1")())
	})
	t.Logf("new workloads were answered in the other domain after %s", took)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"BothSeeEachOther", w.bothSeeEachOther},
		{"RelationshipsAndEndpoints", w.relationshipsAndEndpoints},
		{"EntriesOfOthers", w.entriesOfOthers},
		{"RootsChangeUnderLoad", w.rootsChangeUnderLoad},
		{"UnfederatedIsRefused", w.unfederatedIsRefused},
		{"ServersAndAgentsFail", w.serversAndAgentsFail},
		{"RemovedClusterIsForgotten", w.removedClusterIsForgotten},
	} {
		began := time.Now()
		if !t.Run(part.name, part.run) {
			t.FailNow()
		}
		t.Logf("%s took %s", part.name, time.Since(began).Round(100*time.Millisecond))
	}
}

// startAgents starts both. West's entry is not marked admin at first, and its agent must say so.
func (w *world) startAgents(t *testing.T) {
	services := "apiVersion: periplus.io/v1\nkind: Service\nmetadata: {name: legacy, namespace: shop}\nspec:\n  exported: true\n  ports:\n  - {name: http, port: 80, protocol: http}\n---\n" +
		"apiVersion: periplus.io/v1\nkind: Endpoints\nmetadata: {name: legacy, namespace: shop}\nspec:\n  endpoints:\n  - {name: legacy-1, address: " + w.legacy +
		", ports: {http: 15006}, identity: spiffe://east.test/ns/shop/sa/legacy}\n"
	w.east.agent = w.east.Agent("--services", w.merged(t, w.east.Services("catalog.shop:http:80:http"), services), "--bundle-endpoint", w.east.spire.BundleEndpoint)
	w.west.agent = w.west.Agent("--services", w.west.Services("visitor.shop:http:80:http"), "--server-socket", "", "--server-address", w.west.spire.ServerAddress,
		"--bundle-endpoint", w.unreachable)
	harness.Eventually(t, 20*time.Second, "the agent without admin rights says what to do", func() error {
		if !strings.Contains(w.west.agent.Log(), "must be marked admin") {
			return errors.New("not in its log")
		}
		return nil
	})
	w.markAdmin(t, w.west, w.west.ID("agent").String())
	harness.Eventually(t, 20*time.Second, "the agent with admin rights federates", func() error { return w.states(t, "InSync") })
}

func (w *world) merged(t *testing.T, path, more string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return w.east.File("all.yaml", string(data)+"---\n"+more)
}

// entry is one registration entry as spire-server prints it.
type entry struct {
	ID       string `json:"id"`
	SPIFFEID struct {
		Path string `json:"path"`
	} `json:"spiffe_id"`
	ParentID struct {
		TrustDomain string `json:"trust_domain"`
		Path        string `json:"path"`
	} `json:"parent_id"`
	Selectors []struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	} `json:"selectors"`
	FederatesWith []string `json:"federates_with"`
}

func entries(t *testing.T, s side, args ...string) []entry {
	t.Helper()
	var out struct{ Entries []entry }
	if err := json.Unmarshal([]byte(s.spire.ServerCommand(append([]string{"entry", "show", "-output", "json"}, args...)...)), &out); err != nil {
		t.Fatal(err)
	}
	return out.Entries
}

func (w *world) markAdmin(t *testing.T, s side, id string) {
	t.Helper()
	for _, e := range entries(t, s, "-spiffeID", id) {
		s.spire.ServerCommand("entry", "update", "-entryID", e.ID, "-spiffeID", id, "-parentID", "spiffe://"+e.ParentID.TrustDomain+e.ParentID.Path,
			"-selector", e.Selectors[0].Type+":"+e.Selectors[0].Value, "-admin")
	}
}

// domain and pair are a part of 'periplus trust status -o json'.
type domain struct {
	TrustDomain, Cluster, State, Reason string
	Sequence, OwnSequence               uint64 `json:",string"`
	Authorities                         int
	Peers                               []pair
}

type pair struct {
	Cluster, State, Reason, Delivery string
	Sequence                         uint64 `json:",string"`
	Authorities                      int
	HeldMs, AgeMs, ExpiresAtMs       int64 `json:",string"`
}

func (w *world) trust(t *testing.T) map[string]domain {
	t.Helper()
	var list struct{ Items []domain }
	if err := json.Unmarshal([]byte(w.Periplus("trust", "status", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]domain{}
	for _, d := range list.Items {
		out[d.TrustDomain] = d
	}
	return out
}

// states checks that each side has published its bundle and the other holds it so.
func (w *world) states(t *testing.T, want string) error {
	status := w.trust(t)
	for _, name := range []string{"east.test", "west.test"} {
		d := status[name]
		if d.State != "Published" || len(d.Peers) != 1 || d.Peers[0].State != want || d.Peers[0].Sequence != d.Sequence {
			return fmt.Errorf("%s: %+v", name, d)
		}
	}
	return nil
}
