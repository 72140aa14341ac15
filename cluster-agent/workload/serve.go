package workload

import (
	"context"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/trust"
)

// Register offers the registry on s, which must verify its clients by package trust.
func (r *Registry) Register(s grpc.ServiceRegistrar) {
	pb.RegisterWorkloadServiceServer(s, &server{registry: r})
}

type server struct {
	pb.UnimplementedWorkloadServiceServer
	registry *Registry
}

// Announce holds the caller's name for as long as the stream lives.
func (s *server) Announce(stream pb.WorkloadService_AnnounceServer) error {
	identity, err := peerOf(stream.Context())
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	session := s.registry.open(identity)
	defer func() { s.registry.close(session, time.Now()) }()
	requests := make(chan *pb.AnnounceRequest)
	lost := make(chan error, 1)
	go receive(stream, requests, lost) // ends with the stream, which ends when this returns
	for {
		select {
		case <-session.replaced:
			return status.Error(codes.Aborted, errReplaced.Error())
		case <-lost:
			return nil
		case request := <-requests:
			response, err := s.registry.announce(session, request)
			if err != nil {
				return err
			}
			if err := stream.Send(response); err != nil {
				return err
			}
		}
	}
}

func receive(stream pb.WorkloadService_AnnounceServer, requests chan<- *pb.AnnounceRequest, lost chan<- error) {
	for {
		request, err := stream.Recv()
		if err != nil {
			lost <- err
			return
		}
		select {
		case requests <- request:
		case <-stream.Context().Done():
			lost <- stream.Context().Err()
			return
		}
	}
}

// announce is one announcement of a session; the error is a gRPC status and leaves everything as it was.
func (r *Registry) announce(s *session, request *pb.AnnounceRequest) (*pb.AnnounceResponse, error) {
	a, err := r.read(s.identity, request)
	if err != nil {
		r.metrics.refused.WithLabelValues("invalid").Inc()
		r.config.Log.Warn("announcement refused", "endpoint", request.GetName(), "peer", s.identity, "err", err)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	switch err := r.hold(s, a.name, a); {
	case errors.Is(err, errReplaced):
		return nil, status.Error(codes.Aborted, err.Error())
	case err != nil:
		return nil, status.Error(codes.AlreadyExists, err.Error())
	}
	response := &pb.AnnounceResponse{Rejections: a.rejections}
	for _, object := range a.objects {
		response.Keys = append(response.Keys, string(object.Key()))
	}
	for _, rejection := range a.rejections {
		r.metrics.refused.WithLabelValues("service").Inc()
		r.config.Log.Warn("announced service refused", "endpoint", request.GetName(), "peer", s.identity, "key", rejection.Key, "err", rejection.Reason)
	}
	return response, nil
}

// peerOf is who the connection's verified certificate says.
func peerOf(ctx context.Context) (spiffeid.ID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return spiffeid.ID{}, trust.ErrUnverified
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return spiffeid.ID{}, trust.ErrUnverified
	}
	return trust.PeerID(info.State)
}
