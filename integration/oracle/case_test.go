package oracle

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"sigs.k8s.io/yaml"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	envoyshares "github.com/periplus-mesh/periplus/internal/translate/shares"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// testCase is one row of the table. In its YAML "@" stands for the case's name and "-", so that names are its own.
type testCase struct {
	name     string
	clusters []cluster
	// routes is a YAML list of routes; "" sends everything to cluster @a.
	routes string
	// host is YAML of further fields of the virtual host.
	host string
	// domains of the virtual host; none: the case's name and ".test".
	domains []string
	// listener that takes the requests; "" is "main".
	listener string
	run      func(*probe)
}

// cluster is YAML of a Cluster, and its endpoints.
type cluster struct {
	name  string
	yaml  string
	at    []locality
	extra string // YAML of the ClusterLoadAssignment's policy
}

// locality has so many hosts in each state; their addresses are made.
type locality struct {
	priority, weight        uint32
	zone                    string
	up, unhealthy, degraded int
	refusing                int // healthy says EDS, but nobody listens
	weights                 []uint32
	block                   uint32 // of addresses, beside the priority's
}

// a is the one cluster of most cases: so many healthy hosts at one priority.
func a(hosts int, yaml string) []cluster {
	return []cluster{{name: "a", yaml: yaml, at: []locality{{up: hosts}}}}
}

func (c *testCase) text(s string) string {
	return strings.NewReplacer("@type", "@type", "@", c.name+"-").Replace(s)
}

// decode fills m from YAML as Envoy's configuration files have it.
func decode(t testing.TB, text string, m proto.Message) {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(data, m)
	}
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
}

func (c *testCase) add(t testing.TB, r resources) *routev3.VirtualHost {
	for _, cl := range c.clusters {
		pb := &clusterv3.Cluster{}
		if cl.yaml != "" {
			decode(t, c.text(cl.yaml), pb)
		}
		pb.Name = c.name + "-" + cl.name
		pb.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		pb.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}}
		r.add(xds.Cluster, pb.Name, pb)
		r.add(xds.Endpoints, pb.Name, cl.assignment(t, pb.Name))
	}
	host := &routev3.VirtualHost{}
	if c.host != "" {
		decode(t, c.text(c.host), host)
	}
	host.Name, host.Domains = c.name, c.domains
	if len(c.domains) == 0 {
		host.Domains = []string{c.name + ".test"}
	}
	routes := c.routes
	if routes == "" {
		routes = `[{match: {prefix: /}, route: {cluster: "@a"}}]`
	}
	data, err := yaml.YAMLToJSON([]byte(c.text(routes)))
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	for _, one := range list {
		route := &routev3.Route{}
		if err := protojson.Unmarshal(one, route); err != nil {
			t.Fatalf("%s: %v in %s", c.name, err, one)
		}
		host.Routes = append(host.Routes, route)
	}
	return host
}

// upstreamPort is every upstream's.
const upstreamPort = 18080

// address of a host: priority and number are in it; nobody listens at refusing ones.
func address(block uint32, number int, refuses bool) string {
	if refuses {
		return fmt.Sprintf("127.45.%d.%d", 90+block, number)
	}
	return fmt.Sprintf("127.45.%d.%d", 10+block, number)
}

// each calls f for each host in order.
func (cl *cluster) each(f func(l locality, address string, weight uint32, health corev3.HealthStatus)) {
	numbers := map[uint32]int{}
	for _, l := range cl.at {
		i := 0
		some := func(n int, health corev3.HealthStatus, refuses bool) {
			for range n {
				block := l.priority + l.block
				numbers[block]++
				weight := uint32(1)
				if i < len(l.weights) {
					weight = l.weights[i]
				}
				i++
				f(l, address(block, numbers[block], refuses), weight, health)
			}
		}
		some(l.up, corev3.HealthStatus_HEALTHY, false)
		some(l.degraded, corev3.HealthStatus_DEGRADED, false)
		some(l.unhealthy, corev3.HealthStatus_UNHEALTHY, false)
		some(l.refusing, corev3.HealthStatus_HEALTHY, true)
	}
}

func (cl *cluster) assignment(t testing.TB, name string) *endpointv3.ClusterLoadAssignment {
	pb := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	if cl.extra != "" {
		pb.Policy = &endpointv3.ClusterLoadAssignment_Policy{}
		decode(t, cl.extra, pb.Policy)
	}
	last := locality{}
	var group *endpointv3.LocalityLbEndpoints
	cl.each(func(l locality, address string, weight uint32, health corev3.HealthStatus) {
		if group == nil || l.priority != last.priority || l.zone != last.zone {
			group, last = &endpointv3.LocalityLbEndpoints{Priority: l.priority, Locality: &corev3.Locality{Region: "eu", Zone: l.zone}}, l
			if l.weight > 0 {
				group.LoadBalancingWeight = wrapperspb.UInt32(l.weight)
			}
			pb.Endpoints = append(pb.Endpoints, group)
		}
		group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus: health, LoadBalancingWeight: wrapperspb.UInt32(weight),
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: upstreamPort}}}}}},
		})
	})
	return pb
}

// predicted is what internal/translate tells users of the cluster's shares, by host.
func (cl *cluster) predicted(panicPercent uint32) map[string]float64 {
	var assignment translate.Assignment
	var names [][]string
	assignment.PanicPercent = panicPercent
	cl.each(func(l locality, address string, weight uint32, health corev3.HealthStatus) {
		for len(assignment.Levels) <= int(l.priority) {
			assignment.Levels, names = append(assignment.Levels, nil), append(names, nil)
		}
		placed := translate.Placed{Weight: weight, LocalityWeight: max(l.weight, 1), Locality: mesh.Locality{Region: "eu", Zone: l.zone}, Health: mesh.Unhealthy}
		if health == corev3.HealthStatus_HEALTHY {
			placed.Health = mesh.Healthy
		}
		assignment.Levels[l.priority] = append(assignment.Levels[l.priority], placed)
		names[l.priority] = append(names[l.priority], address)
	})
	out := map[string]float64{}
	for i, level := range envoyshares.Of(assignment).Endpoints {
		for j, share := range level {
			out[names[i][j]] += share
		}
	}
	return out
}
