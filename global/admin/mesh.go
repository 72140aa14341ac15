package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/shares"
)

// Explain implements MeshService: the very assignment that a sidecar there would get.
func (s *server) Explain(_ context.Context, request *connect.Request[pb.ExplainRequest]) (*connect.Response[pb.ExplainResponse], error) {
	snapshot, m := s.latest(), request.Msg
	cluster := snapshot.Cluster(mesh.ClusterID(m.GetFromCluster()))
	if cluster == nil {
		return nil, notRegistered(m.GetFromCluster())
	}
	name, err := mesh.ParseServiceName(m.GetService())
	if err != nil {
		return nil, invalid(err)
	}
	port, err := portOf(snapshot, name, m.GetPort())
	if err != nil {
		return nil, err
	}
	view := translate.View{
		Role: translate.Sidecar, Cluster: cluster.ID, Network: cluster.Networks[0].Name, Namespace: m.GetFromNamespace(),
		Locality: mesh.Locality{Region: cluster.Region, Zone: m.GetFromZone()},
	}
	if view.Namespace == "" {
		view.Namespace = name.Namespace
	}
	a := translate.Assign(snapshot, view, translate.Request{Service: name, Port: port, Subset: m.GetSubset()})
	response := explained(a)
	response.Revision, response.Service, response.Port = uint64(snapshot.Revision()), name.Host(), uint32(port)
	response.From = string(cluster.ID) + " in " + view.Locality.String()
	return connect.NewResponse(response), nil
}

// portOf is the port asked for, or the service's first.
func portOf(s *mesh.Snapshot, name mesh.ServiceName, want uint32) (uint16, error) {
	known := false
	for service := range s.Services(name) {
		known = true
		for _, p := range service.Ports {
			if want == 0 || uint32(p.Port) == want {
				return p.Port, nil
			}
		}
	}
	if !known {
		return 0, connect.NewError(connect.CodeNotFound, fmt.Errorf("no cluster has service %q", name))
	}
	if want > math.MaxUint16 {
		return 0, invalid(fmt.Errorf("port %d is outside 1..65535", want))
	}
	return 0, connect.NewError(connect.CodeNotFound, fmt.Errorf("service %q has no port %d in any cluster", name, want))
}

func explained(a translate.Assignment) *pb.ExplainResponse {
	out, spread := &pb.ExplainResponse{Rules: a.Rules}, shares.Of(a)
	for i, level := range a.Levels {
		l := &pb.ExplainedLevel{Priority: uint32(i), Share: spread.Levels[i]}
		for j := range level {
			p := &level[j]
			l.Endpoints = append(l.Endpoints, &pb.ExplainedEndpoint{
				Name: p.Name, Cluster: string(p.Cluster), Address: p.Address.String(), Locality: meshpb.EncodeLocality(p.Locality),
				Health: meshpb.EncodeHealth(p.Health), Weight: p.Weight, Share: spread.Endpoints[i][j], Reason: p.Reason, StandsFor: p.StandsFor,
			})
		}
		out.Levels = append(out.Levels, l)
	}
	for _, d := range a.Dropped {
		out.Dropped = append(out.Dropped, &pb.ExplainedEndpoint{
			Name: d.Name, Cluster: string(d.Cluster), Address: addressText(d.Address), Locality: meshpb.EncodeLocality(d.Locality),
			Health: meshpb.EncodeHealth(d.Health), Weight: d.Weight, Reason: d.Reason, StandsFor: d.Count,
		})
	}
	return out
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// ListMembers implements MeshService.
func (s *server) ListMembers(context.Context, *connect.Request[pb.ListMembersRequest]) (*connect.Response[pb.ListMembersResponse], error) {
	return connect.NewResponse(&pb.ListMembersResponse{Items: s.members(time.Now())}), nil
}

func (s *server) members(now time.Time) (out []*pb.MemberStatus) {
	leader := s.Replicas.Leader()
	for _, m := range s.Replicas.Members() {
		place := s.Board.Place(m.ID)
		status := &pb.MemberStatus{
			Id: m.ID, Address: m.Address.Raft, Role: "follower", Voter: m.Voter, AppliedIndex: s.Replicas.Applied(),
			Region: place.Region, Dashboard: place.Dashboard,
		}
		if m.ID != s.ID {
			age, applied, ok := s.Board.Replica(m.ID, now)
			status.AppliedIndex, status.AgeMs = applied, age.Milliseconds()
			if !ok {
				status.AgeMs = -1
			}
			if !ok || age > 5*time.Second {
				status.Role = "unknown"
			}
		}
		if m.ID == leader {
			status.Role = "leader"
		}
		out = append(out, status)
	}
	return out
}

// AddMember implements MeshService. A member of the same id and address stays as it is.
func (s *server) AddMember(ctx context.Context, request *connect.Request[pb.AddMemberRequest]) (*connect.Response[pb.AddMemberResponse], error) {
	address, err := replica.ParseAddress(request.Msg.GetAddress())
	if err != nil {
		return nil, invalid(err)
	}
	m := replica.Member{ID: request.Msg.GetId(), Address: address, Voter: request.Msg.GetVoter()}
	if err := s.Replicas.Join(ctx, m); err != nil {
		return nil, asError(err)
	}
	return connect.NewResponse(&pb.AddMemberResponse{}), nil
}

// RemoveMember implements MeshService.
func (s *server) RemoveMember(ctx context.Context, request *connect.Request[pb.RemoveMemberRequest]) (*connect.Response[pb.RemoveMemberResponse], error) {
	id, members := request.Msg.GetId(), s.Replicas.Members()
	if !slices.ContainsFunc(members, func(m replica.Member) bool { return m.ID == id }) {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("replica %q is not a member", id))
	}
	if len(members) == 1 {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("it is the last replica"))
	}
	if err := s.Replicas.Leave(ctx, id); err != nil {
		return nil, asError(err)
	}
	return connect.NewResponse(&pb.RemoveMemberResponse{}), nil
}
