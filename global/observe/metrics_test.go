package observe

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// What a scrape says is the state of the mesh at that time, and of clusters whose agent was never heard, nothing that
// would look like an age.
func TestCollector(t *testing.T) {
	store, board := new(mesh.Store), NewBoard("a", Place{})
	name := mesh.ServiceName{Namespace: "shop", Name: "catalog"}
	cluster := func(id mesh.ClusterID) *mesh.Cluster {
		return &mesh.Cluster{ID: id, Region: "eu", State: mesh.ClusterActive, TrustDomain: spiffeid.RequireTrustDomainFromString(string(id) + ".test")}
	}
	store.Update(mesh.Delta{Upserts: []mesh.Object{
		cluster("east"), cluster("west"), &mesh.Service{Name: name, Cluster: "east"}, &mesh.Service{Name: name, Cluster: "west"},
		&mesh.EndpointSlice{Service: name, Cluster: "east", Slice: "s", Endpoints: []mesh.Endpoint{{Health: mesh.Healthy}, {Health: mesh.Draining}, {Health: mesh.Healthy}}},
	}})
	connect(t, board, Session{Cluster: "east", Instance: "1", CredentialExpires: time.Unix(1000, 0)}, time.Now())
	collector := NewCollector(func() *mesh.Snapshot { s, _ := store.Latest(); return s }, board)
	check := func(want map[string]float64) {
		t.Helper()
		got := gathered(t, collector)
		for series, value := range want {
			if have, ok := got[series]; !ok || have != value {
				t.Errorf("%s = %v (there: %v), want %v", series, have, ok, value)
			}
		}
		if _, ok := got["periplus_cluster_agent_age_seconds west"]; ok {
			t.Error("the agent of west has an age")
		}
	}
	check(map[string]float64{
		"periplus_cluster_agent_connected east": 1, "periplus_cluster_agent_connected west": 0,
		"periplus_cluster_credential_expiry_timestamp_seconds east": 1000, "periplus_mesh_services": 1,
		"periplus_mesh_endpoints east healthy": 2, "periplus_mesh_endpoints east draining": 1, "periplus_mesh_endpoints west healthy": 0,
		"periplus_mesh_clusters active": 2, "periplus_mesh_clusters drained": 0,
	})
	store.Update(mesh.Delta{Deletes: []mesh.Key{mesh.ServiceKey(name, "east"), mesh.ServiceKey(name, "west"), mesh.EndpointsKey(name, "east", "s")}})
	check(map[string]float64{"periplus_mesh_services": 0, "periplus_mesh_endpoints east healthy": 0})
}

// gathered is name and label values -> value.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			series := family.GetName()
			for _, label := range m.GetLabel() {
				series += " " + label.GetValue()
			}
			out[series] = m.GetGauge().GetValue()
		}
	}
	return out
}
