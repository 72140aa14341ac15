package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Collector reads the state of the mesh and the board when it is scraped. A label is a cluster at most, of which there
// are few; services and endpoints are counted.
type Collector struct {
	latest func() *mesh.Snapshot
	board  *Board

	clusters, services, policies, endpoints, gateways *prometheus.Desc
	connected, age, expiry                            *prometheus.Desc
}

// NewCollector makes a collector of what latest returns and of the board.
func NewCollector(latest func() *mesh.Snapshot, board *Board) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Collector{
		latest: latest, board: board,
		clusters:  desc("periplus_mesh_clusters", "Registered clusters, by state.", "state"),
		services:  desc("periplus_mesh_services", "Services that any cluster exports, each counted once."),
		policies:  desc("periplus_mesh_policies", "Policies in force."),
		endpoints: desc("periplus_mesh_endpoints", "Exported endpoints of a cluster, by health.", "cluster", "health"),
		gateways:  desc("periplus_mesh_gateways", "East-west gateways of a cluster, by health.", "cluster", "health"),
		connected: desc("periplus_cluster_agent_connected", "1 while the cluster's agent is connected to any replica.", "cluster"),
		age:       desc("periplus_cluster_agent_age_seconds", "Time since the cluster's agent was heard by any replica.", "cluster"),
		expiry: desc("periplus_cluster_credential_expiry_timestamp_seconds",
			"When the credential of the cluster's agent ends, as it was when it connected, Unix time.", "cluster"),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.clusters, c.services, c.policies, c.endpoints, c.gateways, c.connected, c.age, c.expiry} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	s, seen := c.latest(), c.board.View(time.Now())
	n := s.Memo(countsKey{}, func() any { return count(s) }).(*counts)
	for _, state := range []mesh.ClusterState{mesh.ClusterActive, mesh.ClusterDrained} {
		gauge(c.clusters, float64(n.states[state]), string(state))
	}
	gauge(c.services, float64(n.services))
	gauge(c.policies, float64(n.policies))
	for cluster := range s.Clusters() {
		id := string(cluster.ID)
		for _, health := range []mesh.Health{mesh.Healthy, mesh.Unhealthy, mesh.Draining} {
			gauge(c.endpoints, float64(n.endpoints[healthOf{cluster.ID, health}]), id, string(health))
			gauge(c.gateways, float64(n.gateways[healthOf{cluster.ID, health}]), id, string(health))
		}
		agent, heard := seen[cluster.ID]
		gauge(c.connected, toNumber(heard && agent.Connected), id)
		if heard {
			gauge(c.age, agent.Age.Seconds(), id)
			gauge(c.expiry, float64(agent.CredentialExpires.Unix()), id)
		}
	}
}

func toNumber(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// counts are remembered by the snapshot: a scrape of an unchanged mesh counts nothing.
type counts struct {
	states              map[mesh.ClusterState]int
	services, policies  int
	endpoints, gateways map[healthOf]int
}

type countsKey struct{}

type healthOf struct {
	cluster mesh.ClusterID
	health  mesh.Health
}

func count(s *mesh.Snapshot) *counts {
	n := &counts{states: map[mesh.ClusterState]int{}, endpoints: map[healthOf]int{}, gateways: map[healthOf]int{}}
	for range s.ServiceNames() {
		n.services++
	}
	for _, object := range s.All() {
		switch o := object.(type) {
		case *mesh.Cluster:
			n.states[o.State]++
		case *mesh.Policy:
			n.policies++
		case *mesh.EndpointSlice:
			for i := range o.Endpoints {
				n.endpoints[healthOf{o.Cluster, o.Endpoints[i].Health}]++
			}
		case *mesh.Gateway:
			n.gateways[healthOf{o.Cluster, o.Health}]++
		}
	}
	return n
}
