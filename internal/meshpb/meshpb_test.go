package meshpb

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// objects are one of each kind, with every field set.
func objects() []mesh.Object {
	domain := spiffeid.RequireTrustDomainFromString("eu-west.mesh")
	id := spiffeid.RequireFromString("spiffe://eu-west.mesh/ns/shop/sa/catalog")
	name := mesh.ServiceName{Namespace: "shop", Name: "catalog"}
	locality := mesh.Locality{Region: "eu-west", Zone: "a", Subzone: "r1"}
	labels := map[string]string{"app": "catalog", "example.com/tier": "gold"}
	cluster := mesh.Cluster{
		ID: "eu-west", Region: "eu-west", TrustDomain: domain, Namespaces: []string{"shop"}, State: mesh.ClusterDrained,
		Networks:             []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}},
		CredentialGeneration: 3, RegisteredAtMillis: 4,
	}
	return []mesh.Object{
		&cluster,
		&mesh.Service{Name: name, Cluster: "eu-west", Exported: true, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}},
		&mesh.EndpointSlice{Service: name, Cluster: "eu-west", Slice: "s", Endpoints: []mesh.Endpoint{{
			Name: "e", Address: netip.MustParseAddr("10.0.0.1"), Ports: map[string]uint16{"http": 8080, "grpc": 9090}, Network: "n1",
			Locality: locality, Health: mesh.Draining, Weight: 7, Labels: labels, Identity: id,
		}}},
		&mesh.Gateway{Cluster: "eu-west", Name: "g", Network: "n1", Address: netip.MustParseAddr("fd00::1"), Port: 15443, Locality: locality, Health: mesh.Unhealthy},
		&mesh.Summary{Service: name, Cluster: "eu-west", Network: "n1", Locality: locality, Buckets: []mesh.SummaryBucket{{
			Labels: labels, Identities: []spiffeid.ID{id}, PortNames: []string{"http"}, Total: 3, Healthy: 2, HealthyWeight: 20,
		}}},
		&mesh.Policy{
			Kind: mesh.KindDestinationRule, Namespace: "shop", Name: "p", Clusters: []mesh.ClusterID{"eu-west"}, Origin: "eu-west", Revision: 2,
			Author: "spiffe://periplus.global/operator/ann", Digest: "d", Source: []byte("kind: x"), Spec: &mesh.DestinationRule{Host: name},
		},
		&mesh.PolicyRevision{
			Revision: 1, Kind: mesh.KindDestinationRule, Namespace: "shop", Name: "p", Operation: "apply", Author: "ann", AtMillis: 5,
			Digest: "d", Chain: "c", Source: []byte("kind: x"),
		},
		&mesh.Federation{TrustDomain: domain, Cluster: "eu-west", Sequence: 9, Bundle: []byte("{}"), Signature: []byte("s"), Chain: [][]byte{{1}, {2}},
			EndpointURL: "https://spire.example:8443", EndpointID: spiffeid.RequireFromPath(domain, "/spire/server")},
		&mesh.JoinToken{Hash: strings.Repeat("0", 64), Cluster: cluster, ExpiresAtMillis: 6, UsedAtMillis: 7, Author: "ann", UsedBy: "key"},
		&mesh.Cursor{Cluster: "eu-west", Epoch: 1, Sequence: 2},
		&mesh.RemovedReplica{ID: "g-2", RemovedAtMillis: 8},
	}
}

// Every field of every kind survives; a field that is added to mesh alone fails here.
func TestRoundTrip(t *testing.T) {
	kinds := make(map[mesh.Kind]bool)
	for _, want := range objects() {
		if field := unset(reflect.ValueOf(want).Elem()); field != "" {
			t.Errorf("%s: the test leaves %s unset", want.Key(), field)
		}
		got, err := Unmarshal(Marshal(want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v (%v)", want.Key(), got, want, err)
		}
		if Digest(want) != Digest(got) {
			t.Errorf("%s: digests differ", want.Key())
		}
		kinds[want.Key().Kind()] = true
	}
	if len(kinds) != 11 {
		t.Errorf("%d kinds", len(kinds))
	}
}

// unset names a field of a struct that is zero.
func unset(v reflect.Value) string {
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() && v.Field(i).IsZero() {
			return v.Type().Field(i).Name
		}
	}
	return ""
}

func TestDefaults(t *testing.T) {
	object, err := Decode(&pb.Object{Kind: &pb.Object_EndpointSlice{EndpointSlice: &pb.EndpointSlice{
		Service: &pb.ServiceName{Namespace: "shop", Name: "catalog"}, Cluster: "a", Slice: "s",
		Endpoints: []*pb.Endpoint{{Name: "e", Address: "10.0.0.1", Ports: map[string]uint32{"http": 1}, Network: "n1"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if e := object.(*mesh.EndpointSlice).Endpoints[0]; e.Weight != 1 || e.Health != mesh.Healthy || !e.Identity.IsZero() {
		t.Errorf("%+v", e)
	}
	if c, err := DecodeCluster(&pb.Cluster{Id: "a"}); err != nil || c.State != mesh.ClusterActive {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestErrorsNameTheField(t *testing.T) {
	slice := func(edit func(*pb.Endpoint)) *pb.Object {
		o := Encode(objects()[2])
		edit(o.GetEndpointSlice().GetEndpoints()[0])
		return o
	}
	for want, o := range map[string]*pb.Object{
		"kind missing":     {},
		`address "x"`:      slice(func(e *pb.Endpoint) { e.Address = "x" }),
		`identity "x"`:     slice(func(e *pb.Endpoint) { e.Identity = "x" }),
		"port 65536":       slice(func(e *pb.Endpoint) { e.Ports["http"] = 65536 }),
		"port 0":           slice(func(e *pb.Endpoint) { e.Ports["http"] = 0 }),
		"weight 65536":     slice(func(e *pb.Endpoint) { e.Weight = 65536 }),
		"health":           slice(func(e *pb.Endpoint) { e.Health = 99 }),
		`network ""`:       slice(func(e *pb.Endpoint) { e.Network = "" }),
		`CIDR "10.0.0.0"`:  {Kind: &pb.Object_Cluster{Cluster: &pb.Cluster{Id: "a", Networks: []*pb.Network{{Name: "n", Cidrs: []string{"10.0.0.0"}}}}}},
		`trust domain "?"`: {Kind: &pb.Object_Cluster{Cluster: &pb.Cluster{Id: "a", TrustDomain: "?"}}},
		`policy kind "X"`:  {Kind: &pb.Object_Policy{Policy: &pb.Policy{Kind: "X"}}},
		"join token":       {Kind: &pb.Object_JoinToken{JoinToken: &pb.JoinToken{}}},
	} {
		if _, err := Decode(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
