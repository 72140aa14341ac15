package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// replicas order commands as the FSM does, in a state that the local store may lag behind until something is ordered.
type replicas struct {
	Replicas
	store  *mesh.Store
	agreed mesh.Store
	fails  int // the proposal, counted from 1, that is not done
	calls  int
}

func (r *replicas) Barrier(context.Context) error {
	var all []mesh.Object
	snapshot, _ := r.agreed.Latest()
	for _, object := range snapshot.All() {
		all = append(all, object)
	}
	r.store.Restore(snapshot.Revision(), all)
	return nil
}

func (r *replicas) Propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	if r.calls++; r.calls == r.fails {
		return nil, fmt.Errorf("propose: %w", replica.ErrNoLeader)
	}
	result := &pb.CommandResult{}
	for _, p := range c.GetParts() {
		held := r.holds(p.GetGuards())
		if result.Applied = append(result.Applied, held); !held {
			continue
		}
		var d mesh.Delta
		for _, key := range p.GetDeletes() {
			d.Deletes = append(d.Deletes, mesh.Key(key))
		}
		for _, o := range p.GetUpserts() {
			object, err := meshpb.Decode(o)
			if err != nil {
				return nil, err
			}
			d.Upserts = append(d.Upserts, object)
		}
		r.agreed.Update(d)
	}
	return result, r.Barrier(ctx)
}

func (r *replicas) holds(guards []*pb.Guard) bool {
	snapshot, _ := r.agreed.Latest()
	for _, g := range guards {
		have := ""
		if object, ok := snapshot.Get(mesh.Key(g.GetKey().GetKey())); ok {
			digest := meshpb.Digest(object)
			have = string(digest[:])
		}
		if have != string(g.GetKey().GetDigest()) {
			return false
		}
	}
	return true
}

func west(state mesh.ClusterState) *mesh.Cluster {
	return &mesh.Cluster{
		ID: "west", Region: "eu", TrustDomain: spiffeid.RequireTrustDomainFromString("west.mesh"), State: state, CredentialGeneration: 1,
		Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
	}
}

// newServer has objects in the agreed state, and in the local store if it does not lag.
func newServer(lags bool, objects ...mesh.Object) (*server, *replicas) {
	r := &replicas{store: new(mesh.Store)}
	r.agreed.Update(mesh.Delta{Upserts: objects})
	if !lags {
		r.Barrier(context.Background())
	}
	return &server{Config{Store: r.store, Replicas: r, Board: observe.NewBoard("a", observe.Place{}), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}, r
}

// A removal that broke off is finished by removing the cluster again, as the error says.
func TestRemovalThatBrokeOffIsFinished(t *testing.T) {
	s, r := newServer(false, west(mesh.ClusterActive), &mesh.Cursor{Cluster: "west"}, &mesh.Gateway{
		Cluster: "west", Name: "g", Network: "n1", Address: netip.MustParseAddr("10.1.0.1"), Port: 1, Health: mesh.Healthy,
	})
	r.fails = 2
	remove := func() (uint32, error) {
		response, err := s.RemoveCluster(t.Context(), connect.NewRequest(&pb.RemoveClusterRequest{Id: "west", Force: true}))
		if err != nil {
			return 0, err
		}
		return response.Msg.GetRemovedObjects(), nil
	}
	if _, err := remove(); !errors.Is(err, replica.ErrNoLeader) {
		t.Fatalf("the first time: %v", err)
	}
	if n, err := remove(); n != 2 || err != nil || s.latest().Len() != 0 {
		t.Errorf("again: %d removed, %v; %d are left", n, err, s.latest().Len())
	}
	if _, err := remove(); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("when nothing is left: %v", err)
	}
}

// A replica that lags does not say that a cluster is drained, or not there, when it is otherwise.
func TestChangeIsOfTheAgreedState(t *testing.T) {
	drain := connect.NewRequest(&pb.SetClusterStateRequest{Id: "west", State: pb.ClusterState_CLUSTER_STATE_DRAINED})
	s, r := newServer(true, west(mesh.ClusterActive))
	if _, err := s.SetClusterState(t.Context(), drain); err != nil || s.latest().Cluster("west").State != mesh.ClusterDrained {
		t.Errorf("of which the replica has not heard: %v", err)
	}
	s, r = newServer(true, west(mesh.ClusterActive))
	r.store.Restore(1, []mesh.Object{west(mesh.ClusterDrained)})
	_, err := s.SetClusterState(t.Context(), drain)
	if agreed, _ := r.agreed.Latest(); err != nil || agreed.Cluster("west").State != mesh.ClusterDrained {
		t.Errorf("that the replica believes to be drained: %v", err)
	}
	before := s.latest().Cluster("west")
	if _, err := s.SetClusterState(t.Context(), drain); err != nil || meshpb.Digest(s.latest().Cluster("west")) != meshpb.Digest(before) {
		t.Errorf("that is drained already: %v", err)
	}
}

// I4: a cluster that is registered for less keeps nothing outside of that.
func TestNarrowerRegistrationRemovesWhatLiesOutside(t *testing.T) {
	cluster := west(mesh.ClusterActive)
	gateway := func(id mesh.ClusterID, name, address string) *mesh.Gateway {
		return &mesh.Gateway{Cluster: id, Name: name, Network: "n1", Address: netip.MustParseAddr(address), Port: 1, Health: mesh.Healthy}
	}
	service := func(namespace string) *mesh.Service {
		return &mesh.Service{Name: mesh.ServiceName{Namespace: namespace, Name: "catalog"}, Cluster: "west", Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}
	}
	federation := &mesh.Federation{TrustDomain: cluster.TrustDomain, Cluster: "west", Sequence: 1, Bundle: []byte("{}")}
	s, _ := newServer(false, cluster, gateway("west", "in", "10.1.0.1"), gateway("west", "out", "10.2.0.1"), gateway("east", "out", "10.2.0.1"),
		service("shop"), service("bank"), federation, &mesh.Cursor{Cluster: "west"})
	cluster.Namespaces = []string{"shop"}
	if _, err := s.Replicas.Propose(t.Context(), &pb.Command{Parts: []*pb.CommandPart{{Upserts: []*pb.Object{meshpb.Encode(cluster)}}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.sweep(t.Context(), cluster, "ada"); err != nil {
		t.Fatal(err)
	}
	var left []string
	for key := range s.latest().All() {
		left = append(left, string(key))
	}
	want := []string{"cluster/west", "cursor/west", "federation/west.mesh", "gateway/east/out", "gateway/west/in", "service/shop/catalog/west"}
	if !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

func TestAgeOfWhatNeverWas(t *testing.T) {
	now := time.Unix(1000, 0)
	for at, want := range map[time.Time]int64{{}: -1, now: 0, now.Add(-time.Second): 1000, now.Add(time.Second): 0} {
		if got := age(at, now); got != want {
			t.Errorf("%v: %d, want %d", at, got, want)
		}
	}
}
