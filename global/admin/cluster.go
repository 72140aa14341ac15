package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/ingest"
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
	if err := s.sweep(ctx, issued.Cluster, author); err != nil {
		return nil, asError(fmt.Errorf("cluster %q is registered, but what it published outside its registration is still there: %w; register it again", cluster.ID, err))
	}
	return connect.NewResponse(&pb.RegisterClusterResponse{
		Cluster: meshpb.EncodeCluster(issued.Cluster), Token: issued.Token.Text(), ExpiresAtMs: issued.Expires.UnixMilli(),
	}), nil
}

// sweep removes what a cluster published while it was registered for more: other addresses, networks or namespaces.
func (s *server) sweep(ctx context.Context, c *mesh.Cluster, author string) error {
	var keys []string
	for key, object := range s.latest().All() {
		if id, ok := key.Cluster(); ok && id == c.ID && ingest.CheckDelete(c, key) == nil && ingest.Check(c, object, nil, time.Now()) != nil {
			keys = append(keys, string(key))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	s.Log.Info("objects outside the registration are removed", "audit", true, "cluster", string(c.ID), "author", author, "objects", len(keys))
	digest := meshpb.Digest(c)
	guards := []*pb.Guard{{Guard: &pb.Guard_Key{Key: &pb.KeyGuard{Key: string(c.Key()), Digest: digest[:]}}}} // else a newer registration's sweep does it
	for batch := range slices.Chunk(keys, removeBatch) {
		if _, err := s.Replicas.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{{Guards: guards, Deletes: batch}}}); err != nil {
			return err
		}
	}
	return nil
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

// cluster is a registered cluster. Before it says that there is none it makes sure that this replica is not behind.
func (s *server) cluster(ctx context.Context, id mesh.ClusterID) (*mesh.Cluster, error) {
	if c := s.latest().Cluster(id); c != nil {
		return c, nil
	}
	if err := s.Replicas.Barrier(ctx); err != nil {
		return nil, asError(err)
	}
	if c := s.latest().Cluster(id); c != nil {
		return c, nil
	}
	return nil, notRegistered(string(id))
}

// change is compare-and-swap on one cluster. If edit changes nothing, the guard alone is proposed: this replica may be
// behind, and what is acknowledged must be so.
func (s *server) change(ctx context.Context, id string, edit func(*mesh.Cluster)) (*mesh.Cluster, error) {
	for range 5 {
		held, err := s.cluster(ctx, mesh.ClusterID(id))
		if err != nil {
			return nil, err
		}
		changed := *held
		edit(&changed)
		before := meshpb.Digest(held)
		part := &pb.CommandPart{Guards: []*pb.Guard{{Guard: &pb.Guard_Key{Key: &pb.KeyGuard{Key: string(held.Key()), Digest: before[:]}}}}}
		if meshpb.Digest(&changed) != before {
			part.Upserts = []*pb.Object{meshpb.Encode(&changed)}
		}
		result, err := s.Replicas.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{part}})
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
// while the rest goes. If that breaks off, removing the cluster again removes what is left of it.
func (s *server) RemoveCluster(ctx context.Context, request *connect.Request[pb.RemoveClusterRequest]) (*connect.Response[pb.RemoveClusterResponse], error) {
	id := mesh.ClusterID(request.Msg.GetId())
	removed := 0
	cluster, err := s.cluster(ctx, id)
	keys := belongings(s.latest(), id)
	switch {
	case err == nil:
		if err := s.removable(cluster, keys, request.Msg.GetForce()); err != nil {
			return nil, err
		}
		if err := s.remove(ctx, []string{string(cluster.Key())}); err != nil {
			return nil, asError(err)
		}
		removed, keys = 1, belongings(s.latest(), id)
	case connect.CodeOf(err) != connect.CodeNotFound || len(keys) == 0:
		return nil, err
	}
	for batch := range slices.Chunk(keys, removeBatch) {
		if err := s.remove(ctx, batch); err != nil {
			return nil, asError(fmt.Errorf("cluster %q is removed, but not all of its objects: %w; remove it again", id, err))
		}
		removed += len(batch)
	}
	return connect.NewResponse(&pb.RemoveClusterResponse{RemovedObjects: uint32(removed)}), nil
}

// removable says why a cluster with these belongings is not removed without force.
func (s *server) removable(c *mesh.Cluster, keys []string, force bool) error {
	switch {
	case force:
		return nil
	case s.Board.View(time.Now())[c.ID].Connected:
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("cluster %q: its agent is connected; stop it first, or use --force", c.ID))
	case hasEndpoints(keys):
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("cluster %q still has endpoints; drain it and stop its agent first, or use --force", c.ID))
	}
	return nil
}

func (s *server) remove(ctx context.Context, keys []string) error {
	_, err := s.Replicas.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{{Deletes: keys}}})
	return err
}

// belongings are the keys of everything that exists because of the cluster, but the cluster itself.
func belongings(s *mesh.Snapshot, of mesh.ClusterID) (keys []string) {
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
		if ok && id == of {
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
