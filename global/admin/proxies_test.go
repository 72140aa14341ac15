package admin

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// What agents report is listed by cluster and proxy, with the replica that hears the agent; a cluster that is removed, or
// unknown, has none.
func TestListProxies(t *testing.T) {
	s := &server{Config{Store: new(mesh.Store), Board: observe.NewBoard("g-1", observe.Place{})}}
	for _, id := range []mesh.ClusterID{"east", "west"} {
		s.Store.Update(mesh.Delta{Upserts: []mesh.Object{&mesh.Cluster{
			ID: id, Region: "region-" + string(id), TrustDomain: spiffeid.RequireTrustDomainFromString(string(id) + ".test"), State: mesh.ClusterActive,
			Networks: []mesh.NetworkRange{{Name: "n"}},
		}}})
	}
	for _, id := range []mesh.ClusterID{"west", "east", "gone"} {
		session := observe.Session{Cluster: id, Instance: "i"}
		stream, err := s.Board.Connect(session, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s.Board.Load(id, &pb.LoadReport{Proxies: []*pb.ProxyState{{Id: "b"}, {Id: "a"}}}, time.Now())
		if id == "west" {
			s.Board.Disconnect(stream, time.Now())
		}
	}
	list := func(cluster string) (string, error) {
		response, err := s.ListProxies(t.Context(), connect.NewRequest(&pb.ListProxiesRequest{Cluster: cluster}))
		if err != nil {
			return "", err
		}
		var out []string
		for _, p := range response.Msg.GetItems() {
			out = append(out, p.GetRegion()+" "+p.GetState().GetId()+" "+p.GetReplica())
		}
		return strings.Join(out, ", "), nil
	}
	for cluster, want := range map[string]string{
		"": "region-east a g-1, region-east b g-1, region-west a , region-west b ", "west": "region-west a , region-west b ",
	} {
		if got, err := list(cluster); err != nil || got != want {
			t.Errorf("%q: %v, %q, want %q", cluster, err, got, want)
		}
	}
	if _, err := list("gone"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a cluster that is not registered: %v", err)
	}
}
