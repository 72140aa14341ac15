package harness_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// Two clusters of two networks, a request from one to the other through a gateway, load, and metrics everywhere.
func TestTwoClusters(t *testing.T) {
	m := harness.New(t, harness.Options{Prefix: "127.40"})
	east, west := m.Cluster(harness.ClusterOptions{Name: "east"}), m.Cluster(harness.ClusterOptions{Name: "west"})
	for _, c := range []*harness.Cluster{east, west} {
		c.Authority()
		c.Agent("--services", c.Services("catalog.shop:http:80:http"))
	}
	east.Gateway("east-gateway", "a")
	east.Sidecar(harness.SidecarOptions{Name: "catalog-1", Service: "catalog.shop", Zone: "a", App: m.App(t, "catalog-1")})
	visitor := west.Sidecar(harness.SidecarOptions{Name: "visitor-1", Service: "visitor.shop", Zone: "a"})
	harness.Eventually(t, 20*time.Second, "a request across networks", harness.Answered(visitor.Outbound, "catalog.shop", "catalog-1"))
	_, _, header, err := harness.Get(visitor.Outbound, "catalog.shop", "/")
	if got, want := header.Get(harness.HeaderCaller), west.ID("visitor").String(); err != nil || got != want {
		t.Errorf("the app saw caller %q, want %q (%v)", got, want, err)
	}
	load := harness.StartLoad(t, 100, harness.Requests(t, visitor.Outbound, "catalog.shop"))
	time.Sleep(time.Second)
	load.NoneFailed(t)
	for _, url := range m.MetricsURLs {
		if err := realdeps.Answers(http.DefaultClient, url)(); err != nil {
			t.Error(err)
		}
	}
}
