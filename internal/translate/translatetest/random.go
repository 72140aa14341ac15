// Package translatetest draws small random meshes for property tests: few clusters, networks and services, so that
// everything meets everything.
package translatetest

import (
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// Clusters and what they may have. "b" shares a network with "a" and has another; "c" shares none.
var (
	Clusters   = []mesh.ClusterID{"a", "b", "c"}
	networks   = map[mesh.ClusterID][]mesh.Network{"a": {"n1"}, "b": {"n1", "n2"}, "c": {"n3"}}
	services   = []mesh.ServiceName{{Namespace: "shop", Name: "catalog"}, {Namespace: "shop", Name: "stock"}, {Namespace: "pay", Name: "catalog"}}
	localities = []mesh.Locality{{Region: "eu", Zone: "1"}, {Region: "eu", Zone: "2", Subzone: "r1"}, {Region: "us", Zone: "1"}, {Region: "ap"}}
	portSets   = [][]mesh.ServicePort{
		{{Name: "http", Port: 80, Protocol: mesh.HTTP}},
		{{Name: "http", Port: 80, Protocol: mesh.HTTP}, {Name: "db", Port: 5432, Protocol: mesh.TCP}},
		{{Name: "web", Port: 80, Protocol: mesh.GRPC}, {Name: "http", Port: 8080, Protocol: mesh.HTTP}},
	}
)

// Delta draws some changes.
func Delta(t *rapid.T) mesh.Delta {
	var d mesh.Delta
	for range rapid.IntRange(1, 6).Draw(t, "changes") {
		object := Object(t)
		if rapid.IntRange(0, 4).Draw(t, "delete") == 0 {
			d.Deletes = append(d.Deletes, object.Key())
		} else {
			d.Upserts = append(d.Upserts, object)
		}
	}
	return d
}

// Summaries draws what an agent's snapshot also has: what it knows of other networks by count only.
func Summaries(t *rapid.T) mesh.Delta {
	var d mesh.Delta
	for range rapid.IntRange(0, 4).Draw(t, "summaries") {
		object := summary(t)
		if rapid.IntRange(0, 4).Draw(t, "delete") == 0 {
			d.Deletes = append(d.Deletes, object.Key())
		} else {
			d.Upserts = append(d.Upserts, object)
		}
	}
	return d
}

func summary(t *rapid.T) *mesh.Summary {
	s := &mesh.Summary{Service: pick(t, services), Cluster: pick(t, Clusters), Locality: pick(t, localities)}
	s.Network = pick(t, networks[s.Cluster])
	for _, labels := range []map[string]string{nil, {"version": "v1"}} {
		total := rapid.IntRange(0, 3).Draw(t, "total")
		b := mesh.SummaryBucket{
			Labels: labels, PortNames: pick(t, [][]string{{"http"}, {"db", "http"}, {"web"}}), Total: uint32(total),
			Healthy: uint32(rapid.IntRange(0, total).Draw(t, "healthy")),
			Identities: []spiffeid.ID{spiffeid.RequireFromSegments(Domain(s.Cluster), "ns", s.Service.Namespace, "sa",
				fmt.Sprint("sa", rapid.IntRange(1, 3).Draw(t, "account")))},
		}
		b.HealthyWeight = b.Healthy * uint32(rapid.IntRange(1, 3).Draw(t, "weight"))
		s.Buckets = append(s.Buckets, b)
	}
	if err := s.Validate(); err != nil {
		t.Fatalf("generator: %v", err)
	}
	return s
}

// Start draws a mesh with something everywhere.
func Start(t *rapid.T) mesh.Delta {
	var d mesh.Delta
	for range 40 {
		d.Upserts = append(d.Upserts, Object(t))
	}
	return d
}

// Object draws a valid object.
func Object(t *rapid.T) mesh.Object {
	var object mesh.Object
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0, 1:
		object = Cluster(t)
	case 2, 3, 4:
		object = &mesh.Service{Name: pick(t, services), Cluster: pick(t, Clusters), Ports: pick(t, portSets), Exported: rapid.Bool().Draw(t, "exported")}
	case 5, 6:
		object = gateway(t)
	case 7, 8:
		object = policy(t)
	case 9:
		object = federation(pick(t, Clusters))
	default:
		object = slice(t)
	}
	if err := object.Validate(); err != nil {
		t.Fatalf("generator: %v", err)
	}
	return object
}

// Domain is a cluster's trust domain.
func Domain(c mesh.ClusterID) spiffeid.TrustDomain {
	return spiffeid.RequireTrustDomainFromString(string(c) + ".mesh")
}

// Cluster draws a cluster.
func Cluster(t *rapid.T) *mesh.Cluster {
	id := pick(t, Clusters)
	c := &mesh.Cluster{ID: id, Region: "eu", TrustDomain: Domain(id), State: pick(t, []mesh.ClusterState{mesh.ClusterActive, mesh.ClusterActive, mesh.ClusterDrained})}
	for _, network := range networks[id] {
		c.Networks = append(c.Networks, mesh.NetworkRange{Name: network})
	}
	if rapid.IntRange(0, 5).Draw(t, "one network") == 0 {
		c.Networks = c.Networks[:1]
	}
	return c
}

// loadBalancer4 stands before gateways of several networks and clusters.
var loadBalancer4 = netip.MustParseAddr("192.168.0.1")

func gateway(t *rapid.T) *mesh.Gateway {
	id := pick(t, Clusters)
	n := rapid.IntRange(1, 3).Draw(t, "gateway")
	return &mesh.Gateway{
		Cluster: id, Name: fmt.Sprint("gw", n), Network: pick(t, networks[id]),
		Address: pick(t, []netip.Addr{netip.AddrFrom4([4]byte{192, 168, id[0], byte(n)}), loadBalancer4}), Port: 15443,
		Locality: pick(t, localities), Health: health(t),
	}
}

func slice(t *rapid.T) *mesh.EndpointSlice {
	s := &mesh.EndpointSlice{Service: pick(t, services), Cluster: pick(t, Clusters), Slice: pick(t, []string{"s1", "s2"})}
	for i := range rapid.IntRange(0, 4).Draw(t, "endpoints") {
		e := mesh.Endpoint{
			Name: fmt.Sprint(s.Slice, "-", i), Address: netip.AddrFrom4([4]byte{10, s.Cluster[0], 0, byte(rapid.IntRange(1, 9).Draw(t, "address"))}),
			Ports:   pick(t, []map[string]uint16{{"http": 8080}, {"http": 8080, "db": 5432}, {"web": 9090}}),
			Network: pick(t, networks[s.Cluster]), Locality: pick(t, localities), Health: health(t),
			Weight: uint32(rapid.IntRange(1, 3).Draw(t, "weight")),
			Labels: pick(t, []map[string]string{nil, {"version": "v1"}, {"version": "v2", "x": "y"}}),
		}
		if account := rapid.IntRange(0, 3).Draw(t, "account"); account > 0 {
			e.Identity = spiffeid.RequireFromSegments(Domain(s.Cluster), "ns", s.Service.Namespace, "sa", fmt.Sprint("sa", account))
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func federation(c mesh.ClusterID) *mesh.Federation {
	return &mesh.Federation{TrustDomain: Domain(c), Cluster: c, Sequence: 1, Bundle: []byte("{}")}
}

func policy(t *rapid.T) *mesh.Policy {
	p := &mesh.Policy{
		Namespace: pick(t, []string{"shop", "pay", mesh.RootNamespace}), Name: pick(t, []string{"p1", "p2"}),
		Clusters: pick(t, [][]mesh.ClusterID{nil, nil, {"a"}, {"b", "c"}}),
		Origin:   pick(t, []mesh.ClusterID{"", "", "", "a", "b"}),
	}
	switch rapid.IntRange(0, 3).Draw(t, "policy") {
	case 0:
		p.Kind, p.Spec = mesh.KindVirtualService, virtualService(t)
	case 1:
		p.Kind, p.Spec = mesh.KindAuthorizationPolicy, authorizationPolicy(t)
	default:
		p.Kind, p.Spec = mesh.KindDestinationRule, destinationRule(t)
	}
	return p
}

func health(t *rapid.T) mesh.Health {
	return pick(t, []mesh.Health{mesh.Healthy, mesh.Healthy, mesh.Unhealthy, mesh.Draining})
}

// View draws a client of a cluster.
func View(t *rapid.T, c mesh.ClusterID) translate.View {
	v := translate.View{
		Cluster: c, Network: pick(t, []mesh.Network{"n1", "n2", "n3"}), Locality: pick(t, append(localities, mesh.Locality{})),
		Namespace: pick(t, []string{"shop", "pay"}), Role: translate.Sidecar,
		Workload: `{"BIND":"127.0.0.1","OUTBOUND_PORT":15001,"TCP_OUTBOUND":true,"LABELS":{"version":"` + pick(t, []string{"v1", "v2"}) + `"},"INBOUND":[{"SERVICE":"catalog.shop","PORT_NAME":"http","SERVICE_PORT":80,"PROTOCOL":"http","ENDPOINT_PORT":8080,"APP":"127.0.0.1:1"}]}`,
	}
	switch rapid.IntRange(0, 5).Draw(t, "role") {
	case 0:
		v.Role, v.Network, v.Workload = translate.Gateway, pick(t, networks[c]), `{"BIND":"127.0.0.1","GATEWAY_PORT":15443}`
	case 1:
		v.Role, v.Workload = pick(t, []translate.Role{translate.GRPC, translate.GRPCDirect}), "{}"
	}
	return v
}

// AnyCluster draws a cluster's name.
func AnyCluster(t *rapid.T) mesh.ClusterID { return pick(t, Clusters) }

func pick[T any](t *rapid.T, from []T) T { return from[rapid.IntRange(0, len(from)-1).Draw(t, "pick")] }
