package replica

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/raft"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/replica/divergence"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// Service is the PeerService of one replica. Only controllers of the same control plane may call it, and all but
// Join only members.
type Service struct {
	pb.UnimplementedPeerServiceServer
	Replica *Replica
	// Received takes what another replica observed.
	Received func(replica string, o *pb.Observations)
}

// Propose is done here or, with FailedPrecondition, not at all; it is not forwarded again.
func (s *Service) Propose(ctx context.Context, request *pb.ProposeRequest) (*pb.CommandResult, error) {
	if _, err := s.caller(ctx); err != nil {
		return nil, err
	}
	if node := s.Replica.node.Load(); node == nil || node.State() != raft.Leader {
		return nil, status.Error(codes.FailedPrecondition, errNotLeader.Error())
	}
	result, err := s.Replica.proposeHere(ctx, request.GetCommand())
	switch {
	case errors.Is(err, errNotLeader):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, ErrRefused):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.Error(codes.Aborted, err.Error())
	}
	return result, nil
}

// Share takes the caller's observations.
func (s *Service) Share(ctx context.Context, o *pb.Observations) (*pb.ShareResponse, error) {
	id, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	var said divergence.Point
	if o.GetStateSchema() == meshpb.Schema() { // else it is of another version, and its objects have other fields
		said = divergence.Point{Index: o.GetStateIndex(), Sum: o.GetStateSum()}
	}
	s.Replica.jury.Heard(id, said)
	if s.Received != nil {
		s.Received(id, o)
	}
	return &pb.ShareResponse{}, nil
}

// Join makes the caller a member, or whom a member vouches for.
func (s *Service) Join(ctx context.Context, request *pb.JoinRequest) (*pb.JoinResponse, error) {
	id, err := s.controller(ctx)
	if err != nil {
		return nil, err
	}
	if id != request.GetId() && !s.Replica.member(id) {
		return nil, status.Errorf(codes.PermissionDenied, "replica %q may not let %q join", id, request.GetId())
	}
	address, err := ParseAddress(request.GetAddress())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	err = s.Replica.join(ctx, Member{ID: request.GetId(), Address: address, Voter: request.GetVoter()}, request.GetEmpty())
	return &pb.JoinResponse{}, membershipStatus(err)
}

// Leave removes a member.
func (s *Service) Leave(ctx context.Context, request *pb.LeaveRequest) (*pb.LeaveResponse, error) {
	if _, err := s.caller(ctx); err != nil {
		return nil, err
	}
	return &pb.LeaveResponse{}, membershipStatus(s.Replica.Leave(ctx, request.GetId()))
}

func membershipStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRefused):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

func (s *Service) controller(ctx context.Context) (string, error) {
	identity, err := peer.FromContext(ctx)
	if err == nil {
		var id string
		if id, err = identity.Plane(s.Replica.config.Domain, mesh.RoleController); err == nil {
			return id, nil
		}
	}
	return "", status.Errorf(codes.PermissionDenied, "peer service: %v", err)
}

// caller is the member who calls. A replica that is no member itself, because it has not joined yet or lost its disk,
// knows of none and refuses nobody for that: it is only not the one to ask.
func (s *Service) caller(ctx context.Context) (string, error) {
	id, err := s.controller(ctx)
	switch {
	case err != nil:
	case !s.Replica.member(s.Replica.config.ID):
		err = status.Error(codes.FailedPrecondition, errNotLeader.Error())
	case !s.Replica.member(id):
		err = status.Errorf(codes.PermissionDenied, "peer service: replica %q is not a member", id)
	}
	return id, err
}
