package report

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// deaf is a controller that says welcome and then reads nothing any more.
type deaf struct {
	pb.UnimplementedAgentServiceServer
	streams chan struct{}
}

func (d *deaf) Report(stream pb.AgentService_ReportServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Welcome{Welcome: &pb.Welcome{Epoch: 1}}}); err != nil {
		return err
	}
	d.streams <- struct{}{}
	<-stream.Context().Done()
	return nil
}

// A controller that hangs, while its connection lives, is left for another one, though load reports have filled the
// stream's window meanwhile.
func TestDeafControllerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, network := trusttest.NewCA("plane.test"), new(memnet.Network)
		listener, err := network.Listen("controller:1")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(trust.ServerConfig(ca.Source("/controller/one", 24*time.Hour), trust.AuthorizeAny))),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second}))
		controller := &deaf{streams: make(chan struct{}, 100)}
		pb.RegisterAgentServiceServer(server, controller)
		go server.Serve(listener)
		defer server.Stop()

		closed := make(chan struct{})
		close(closed)
		load := &pb.LoadReport{Cluster: strings.Repeat("x", 100_000)}
		r, err := New(Config{
			Owner: owner, Store: new(mesh.Store), Ready: closed, Settled: closed, Source: ca.Source("/agent/east", 24*time.Hour), Authorize: trust.AuthorizeAny,
			Controllers: func() []string { return []string{"controller:1"} }, OnCluster: func(*pb.Cluster) {},
			Load: func(time.Time) *pb.LoadReport { return load },
			Dial: network.From("agent"), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(5 * time.Minute)
		if n := len(controller.streams); n < 2 {
			t.Errorf("%d streams in 5 minutes", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
