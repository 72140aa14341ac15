package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// ListProxies implements MeshService: what every agent last reported of the streams of its proxies.
func (s *server) ListProxies(_ context.Context, request *connect.Request[pb.ListProxiesRequest]) (*connect.Response[pb.ListProxiesResponse], error) {
	snapshot, only := s.latest(), mesh.ClusterID(request.Msg.GetCluster())
	if only != "" && snapshot.Cluster(only) == nil {
		return nil, notRegistered(string(only))
	}
	view, response := s.Board.View(time.Now()), new(pb.ListProxiesResponse)
	for c := range snapshot.Clusters() {
		if only != "" && c.ID != only {
			continue
		}
		seen, from := view[c.ID], len(response.Items)
		replica := ""
		if seen.Connected {
			replica = seen.Replica
		}
		for _, state := range seen.Load.GetProxies() {
			response.Items = append(response.Items, &pb.ProxyStatus{
				Cluster: string(c.ID), Region: c.Region, State: state, AgeMs: seen.LoadAge.Milliseconds(), Replica: replica,
			})
		}
		slices.SortFunc(response.Items[from:], func(a, b *pb.ProxyStatus) int { return cmp.Compare(a.GetState().GetId(), b.GetState().GetId()) })
	}
	return connect.NewResponse(response), nil
}
