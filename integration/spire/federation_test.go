package spire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
)

// A request in each direction, and on both ends of it the SPIFFE ID of the other.
func (w *world) bothSeeEachOther(t *testing.T) {
	for _, row := range []struct {
		from, to         *harness.Sidecar
		service, app     string
		caller, answerer string
	}{
		{w.visitor, w.catalog, "catalog.shop", "catalog-1", "spiffe://west.test/ns/shop/sa/visitor", "spiffe://east.test/ns/shop/sa/catalog"},
		{w.catalog, w.visitor, "visitor.shop", "visitor-1", "spiffe://east.test/ns/shop/sa/catalog", "spiffe://west.test/ns/shop/sa/visitor"},
	} {
		_, _, header, err := harness.Get(row.from.Outbound, row.service, "/seen")
		if got := header.Get(harness.HeaderCaller); err != nil || got != row.caller {
			t.Errorf("%s saw %q, want %q (%v)", row.app, got, row.caller, err)
		}
		if err := errors.Join(counted(row.from, "destination_principal", row.answerer), counted(row.to, "source_principal", row.caller)); err != nil {
			t.Error(err)
		}
	}
	out := w.Periplus("trust", "status", "-o", "wide")
	t.Logf("trust status:\n%s", out)
	for _, format := range []string{"table", "yaml", "name"} {
		if out := w.Periplus("trust", "status", "-o", format); !strings.Contains(out, "east.test") || !strings.Contains(out, "west.test") {
			t.Errorf("-o %s: %s", format, out)
		}
	}
	for name, d := range w.trust(t) {
		if p := d.Peers[0]; p.Authorities != 1 || p.HeldMs < 0 || p.AgeMs > 15000 || time.Until(time.UnixMilli(p.ExpiresAtMs)) < 23*time.Hour {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// counted wants that a sidecar has verified the other's ID of an answered request.
func counted(s *harness.Sidecar, label, id string) error {
	response, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "istio_requests_total{") && strings.Contains(line, label+`="`+id+`"`) && strings.Contains(line, `response_code="200"`) {
			return nil
		}
	}
	return fmt.Errorf("%s: no request with %s %q (%v)", s.Name, label, id, err)
}

type relationship struct {
	TrustDomain string `json:"trust_domain"`
	URL         string `json:"bundle_endpoint_url"`
	HTTPSSPIFFE struct {
		ID string `json:"endpoint_spiffe_id"`
	} `json:"https_spiffe"`
}

func relationships(t *testing.T, s side) []relationship {
	t.Helper()
	var out struct {
		FederationRelationships []relationship `json:"federation_relationships"`
	}
	if err := json.Unmarshal([]byte(s.spire.ServerCommand("federation", "list", "-output", "json")), &out); err != nil {
		t.Fatal(err)
	}
	return out.FederationRelationships
}

// Each server has a relationship with the other's endpoint, of profile https_spiffe. One that cannot be reached
// changes nothing; one that can brings what the mesh brought, and nobody fights over it.
func (w *world) relationshipsAndEndpoints(t *testing.T) {
	for _, row := range []struct {
		at       side
		domain   string
		endpoint string
	}{{w.east, "west.test", w.unreachable}, {w.west, "east.test", w.east.spire.BundleEndpoint}} {
		have := relationships(t, row.at)
		if len(have) != 1 || have[0].TrustDomain != row.domain || have[0].URL != row.endpoint || have[0].HTTPSSPIFFE.ID != "spiffe://"+row.domain+"/spire/server" {
			t.Fatalf("%s: %+v", row.at.Name, have)
		}
	}
	before := strings.Count(w.west.agent.Log(), `msg="bundle held`) + strings.Count(w.east.agent.Log(), `msg="bundle held`)
	if out, err := w.east.spire.TryServerCommand("federation", "refresh", "-id", "west.test"); err == nil {
		t.Errorf("the unreachable endpoint answered: %s", out)
	}
	t.Log(w.west.spire.ServerCommand("federation", "refresh", "-id", "east.test"))
	time.Sleep(6 * time.Second) // longer than the agents' interval
	if after := strings.Count(w.west.agent.Log(), `msg="bundle held`) + strings.Count(w.east.agent.Log(), `msg="bundle held`); after != before {
		t.Errorf("bundles were changed %d times:\n%s", after-before, w.west.agent.Log())
	}
	if err := w.states(t, "InSync"); err != nil {
		t.Error(err)
	}
	for _, try := range []func() error{harness.Answered(w.visitor.Outbound, "catalog.shop", "catalog-1"), harness.Answered(w.catalog.Outbound, "visitor.shop", "visitor-1")} {
		if err := try(); err != nil {
			t.Error(err)
		}
	}
}

const many = 1200 // entries: more than two pages and twelve batches

// Entries that others made get the mesh's domains beside their own; nodes and downstream servers get none.
func (w *world) entriesOfOthers(t *testing.T) {
	own := filepath.Join(t.TempDir(), "own.pem")
	if err := os.WriteFile(own, []byte(w.west.spire.ServerCommand("bundle", "show")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.east.spire.ServerCommand("bundle", "set", "-id", "spiffe://theirs.test", "-path", own)
	create := func(path, parent string, args ...string) {
		w.east.spire.ServerCommand(append([]string{"entry", "create", "-spiffeID", "spiffe://east.test" + path, "-parentID", parent, "-selector", "unix:uid:54321"}, args...)...)
	}
	create("/theirs", w.east.ParentID, "-federatesWith", "spiffe://theirs.test")
	create("/nodes", "spiffe://east.test/spire/server")
	create("/nested", w.east.ParentID, "-downstream")
	var rows []string
	for i := range many {
		rows = append(rows, fmt.Sprintf(`{"selectors":[{"type":"unix","value":"uid:%d"}],"spiffe_id":"spiffe://east.test/many/%d","parent_id":"spiffe://east.test/elsewhere"}`, 100000+i, i))
	}
	data := filepath.Join(t.TempDir(), "entries.json")
	if err := os.WriteFile(data, []byte(`{"entries":[`+strings.Join(rows, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.east.spire.ServerCommand("entry", "create", "-data", data)
	t.Logf("%d entries made in %s", many, time.Since(began))
	mesh := []string{"periplus.global", "west.test"}
	took := harness.Eventually(t, 40*time.Second, "all entries federate", func() error {
		return federated(t, w.east, map[string][]string{"/theirs": append([]string{"theirs.test"}, mesh...), "/nodes": nil, "/nested": nil}, mesh)
	})
	t.Logf("%d entries federate %s later", many, took)
	if held := w.east.spire.ServerCommand("bundle", "list"); !strings.Contains(held, "theirs.test") {
		t.Errorf("the bundle that somebody else set is gone:\n%s", held)
	}
	w.deleteEntries(t, data)
}

func federated(t *testing.T, s side, special map[string][]string, all []string) error {
	found := 0
	for _, e := range entries(t, s) {
		want, ok := special[e.SPIFFEID.Path]
		if !ok {
			want = all
		}
		slices.Sort(want)
		slices.Sort(e.FederatesWith)
		if !slices.Equal(e.FederatesWith, want) {
			return fmt.Errorf("%s federates with %q, want %q", e.SPIFFEID.Path, e.FederatesWith, want)
		}
		found++
	}
	if found < many {
		return fmt.Errorf("%d entries", found)
	}
	return nil
}

// deleteEntries takes the many out again, so that the rest is quick.
func (w *world) deleteEntries(t *testing.T, path string) {
	t.Helper()
	var ids []string
	for _, e := range entries(t, w.east) {
		if strings.HasPrefix(e.SPIFFEID.Path, "/many/") {
			ids = append(ids, fmt.Sprintf("%q", e.ID))
		}
	}
	if err := os.WriteFile(path, []byte(`{"ids":[`+strings.Join(ids, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.east.spire.ServerCommand("entry", "delete", "-file", path)
}
