package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/registry"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// RegisterCluster implements ClusterService.
func (s *server) RegisterCluster(ctx context.Context, request *connect.Request[pb.RegisterClusterRequest]) (*connect.Response[pb.RegisterClusterResponse], error) {
	cluster, err := meshpb.DecodeCluster(request.Msg.GetCluster())
	if err != nil {
		return nil, invalid(err)
	}
	ttl := time.Duration(request.Msg.GetTokenTtlSeconds()) * time.Second
	if ttl > registry.MaxTokenTTL {
		return nil, invalid(fmt.Errorf("token lives at most %v, not %v", registry.MaxTokenTTL, ttl))
	}
	author, _ := peer.Author(ctx)
	issued, err := s.Registry.Issue(ctx, cluster, ttl, author, time.Now())
	if err != nil {
		return nil, asError(err)
	}
	return connect.NewResponse(&pb.RegisterClusterResponse{
		Cluster: meshpb.EncodeCluster(issued.Cluster), Token: issued.Token.Text(), ExpiresAtMs: issued.Expires.UnixMilli(),
	}), nil
}

// ListClusters implements ClusterService.
func (s *server) ListClusters(_ context.Context, request *connect.Request[pb.ListClustersRequest]) (*connect.Response[pb.ListClustersResponse], error) {
	all := s.clusters(s.latest(), time.Now())
	id := request.Msg.GetId()
	if id == "" {
		return connect.NewResponse(&pb.ListClustersResponse{Items: all}), nil
	}
	for _, c := range all {
		if c.GetCluster().GetId() == id {
			return connect.NewResponse(&pb.ListClustersResponse{Items: []*pb.ClusterStatus{c}}), nil
		}
	}
	return nil, notRegistered(id)
}

func notRegistered(id string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("cluster %q is not registered", id))
}

// SetClusterState implements ClusterService.
func (s *server) SetClusterState(ctx context.Context, request *connect.Request[pb.SetClusterStateRequest]) (*connect.Response[pb.SetClusterStateResponse], error) {
	states := map[pb.ClusterState]mesh.ClusterState{
		pb.ClusterState_CLUSTER_STATE_ACTIVE: mesh.ClusterActive, pb.ClusterState_CLUSTER_STATE_DRAINED: mesh.ClusterDrained,
	}
	state, ok := states[request.Msg.GetState()]
	if !ok {
		return nil, invalid(errors.New("state must be active or drained"))
	}
	cluster, err := s.change(ctx, request.Msg.GetId(), func(c *mesh.Cluster) { c.State = state })
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SetClusterStateResponse{Cluster: meshpb.EncodeCluster(cluster)}), nil
}

// RotateCluster implements ClusterService. See package registry on generations.
func (s *server) RotateCluster(ctx context.Context, request *connect.Request[pb.RotateClusterRequest]) (*connect.Response[pb.RotateClusterResponse], error) {
	step := uint64(1)
	if request.Msg.GetRevoke() {
		step = 2
	}
	cluster, err := s.change(ctx, request.Msg.GetId(), func(c *mesh.Cluster) { c.CredentialGeneration += step })
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RotateClusterResponse{Cluster: meshpb.EncodeCluster(cluster)}), nil
}

// change is compare-and-swap on one cluster; nothing is written if edit changes nothing.
func (s *server) change(ctx context.Context, id string, edit func(*mesh.Cluster)) (*mesh.Cluster, error) {
	for range 5 {
		held := s.latest().Cluster(mesh.ClusterID(id))
		if held == nil {
			return nil, notRegistered(id)
		}
		changed := *held
		edit(&changed)
		before := meshpb.Digest(held)
		if meshpb.Digest(&changed) == before {
			return held, nil
		}
		result, err := s.Replicas.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{{
			Guards: []*pb.Guard{{Guard: &pb.Guard_Key{Key: &pb.KeyGuard{Key: string(held.Key()), Digest: before[:]}}}}, Upserts: []*pb.Object{meshpb.Encode(&changed)},
		}}})
		if err != nil {
			return nil, asError(err)
		}
		if result.GetApplied()[0] {
			return &changed, nil
		}
	}
	return nil, connect.NewError(connect.CodeAborted, fmt.Errorf("cluster %q is being changed by others; try again", id))
}

// removeBatch is how many objects one raft entry deletes.
const removeBatch = 1000

// RemoveCluster implements ClusterService. The cluster goes first, so that its agent is refused and can add nothing
// while the rest goes.
func (s *server) RemoveCluster(ctx context.Context, request *connect.Request[pb.RemoveClusterRequest]) (*connect.Response[pb.RemoveClusterResponse], error) {
	id := mesh.ClusterID(request.Msg.GetId())
	cluster := s.latest().Cluster(id)
	if cluster == nil {
		return nil, notRegistered(string(id))
	}
	keys := belongings(s.latest(), cluster)
	if seen := s.Board.View(time.Now())[id]; !request.Msg.GetForce() && seen.Connected {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("cluster %q: its agent is connected; stop it first, or use --force", id))
	}
	if !request.Msg.GetForce() && hasEndpoints(keys) {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("cluster %q still has endpoints; drain it and stop its agent first, or use --force", id))
	}
	if err := s.remove(ctx, []string{string(cluster.Key())}); err != nil {
		return nil, asError(err)
	}
	removed := 1
	for keys = belongings(s.latest(), cluster); len(keys) > 0; keys = keys[min(len(keys), removeBatch):] {
		batch := keys[:min(len(keys), removeBatch)]
		if err := s.remove(ctx, batch); err != nil {
			return nil, asError(fmt.Errorf("cluster %q is removed, %d of its objects are not yet: %w; remove it again", id, len(keys), err))
		}
		removed += len(batch)
	}
	return connect.NewResponse(&pb.RemoveClusterResponse{RemovedObjects: uint32(removed)}), nil
}

func (s *server) remove(ctx context.Context, keys []string) error {
	_, err := s.Replicas.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{{Deletes: keys}}})
	return err
}

// belongings are the keys of everything that exists because of the cluster, but the cluster itself.
func belongings(s *mesh.Snapshot, c *mesh.Cluster) (keys []string) {
	for key, object := range s.All() {
		id, ok := key.Cluster()
		switch o := object.(type) {
		case *mesh.Cluster:
			continue
		case *mesh.Federation:
			id, ok = o.Cluster, true
		case *mesh.JoinToken:
			id, ok = o.Cluster.ID, true
		case *mesh.Policy:
			id, ok = o.Origin, o.Origin != ""
		}
		if ok && id == c.ID {
			keys = append(keys, string(key))
		}
	}
	return keys
}

func hasEndpoints(keys []string) bool {
	for _, key := range keys {
		if mesh.Key(key).Kind() == mesh.KindEndpoints {
			return true
		}
	}
	return false
}
