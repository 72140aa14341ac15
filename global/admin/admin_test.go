package admin

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/api/periplus/v1/periplusv1connect"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func (r *replicas) Members() []replica.Member { return []replica.Member{{ID: "a"}} }
func (r *replicas) Leader() string            { return "" }
func (r *replicas) LeaderHeard() time.Time    { return time.Time{} }
func (r *replicas) Applied() uint64           { return 0 }

// A replica that has just started knows of nothing, which is not to say that there is nothing. Of the raft group it tells.
func TestStateThatIsNotCompleteIsNotShown(t *testing.T) {
	s, r := newServer(true, west(mesh.ClusterActive))
	s.ID = "a"
	s.Policies = periplusv1connect.UnimplementedPolicyServiceHandler{}
	web := httptest.NewServer(s.services())
	defer web.Close()
	clusters := periplusv1connect.NewClusterServiceClient(web.Client(), web.URL)
	group := periplusv1connect.NewMeshServiceClient(web.Client(), web.URL)
	list := func(ctx context.Context) ([]*pb.ClusterStatus, error) {
		response, err := clusters.ListClusters(ctx, connect.NewRequest(&pb.ListClustersRequest{}))
		if err != nil {
			return nil, err
		}
		return response.Msg.GetItems(), nil
	}
	if members, err := group.ListMembers(t.Context(), connect.NewRequest(&pb.ListMembersRequest{})); err != nil || len(members.Msg.GetItems()) != 1 {
		t.Errorf("members: %v, %v", members, err)
	}
	if _, err := s.complete().WrapUnary(nil)(expired(t), connect.NewRequest(&pb.ListClustersRequest{})); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), `controller "a" has started`) {
		t.Errorf("of a state that has not come: %v", err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		r.Barrier(context.Background())
		s.Store.MarkReady()
	}()
	if got, err := list(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("clusters: %v, %v", got, err)
	}
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
