package telemetry

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	lrsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// lrs is a load reporting server. It ends its first stream after one report.
type lrs struct {
	lrsv3.UnimplementedLoadReportingServiceServer
	requests chan *lrsv3.LoadStatsRequest
	streams  int
}

func (s *lrs) StreamLoadStats(stream grpc.BidiStreamingServer[lrsv3.LoadStatsRequest, lrsv3.LoadStatsResponse]) error {
	s.streams++ // the client has one stream at a time
	for n := 0; ; n++ {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if n == 0 {
			err = stream.Send(&lrsv3.LoadStatsResponse{SendAllClusters: true, LoadReportingInterval: durationpb.New(100 * time.Millisecond)})
		}
		s.requests <- request
		if err != nil || s.streams == 1 && n == 1 {
			return err
		}
	}
}

func TestReportReachesTheServer(t *testing.T) {
	ca := trusttest.NewCA("eu-west.mesh")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := &lrs{requests: make(chan *lrsv3.LoadStatsRequest, 1000)}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(trust.ServerConfig(ca.Source("/periplus/agent", time.Hour), trust.AuthorizeAny))))
	lrsv3.RegisterLoadReportingServiceServer(server, fake)
	go server.Serve(listener)
	defer server.Stop()
	telemetry, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- telemetry.Report(ctx, ReportConfig{Address: listener.Addr().String(), Authorize: trust.AuthorizeAny, Source: ca.Source("/cart", time.Hour),
			Node: &corev3.Node{Id: "sidecar~eu-west~cart"},
			InProgress: func(yield func(Running)) {
				yield(Running{Cluster: request().Cluster, Region: "eu", Zone: "a", Requests: 2})
			}})
	}()
	telemetry.Observe(request())
	if first := <-fake.requests; first.GetNode().GetId() != "sidecar~eu-west~cart" || len(first.GetClusterStats()) != 0 {
		t.Errorf("first request: %v", first)
	}
	telemetry.Observe(request())
	var issued uint64
	third := false
	for until := time.After(15 * time.Second); issued < 3; { // over two streams: the first ends after a report
		select {
		case r := <-fake.requests:
			for _, stats := range r.GetClusterStats() {
				locality := stats.GetUpstreamLocalityStats()[0]
				issued += locality.GetTotalIssuedRequests()
				if locality.GetTotalRequestsInProgress() != 2 || locality.GetLocality().GetZone() != "a" {
					t.Errorf("%v", locality)
				}
			}
			if issued == 2 && !third {
				third = true
				telemetry.Observe(request())
			}
		case <-until:
			t.Fatalf("%d requests reported", issued)
		}
	}
	cancel()
	if err := <-done; err != nil || issued != 3 {
		t.Errorf("%d requests, %v", issued, err)
	}
}

func TestConnectionsAreCountedWhenTheyOpen(t *testing.T) {
	telemetry, _ := New(Config{})
	r := &record.Record{Protocol: record.TCP, GRPC: -1, Cluster: "c", Opened: true}
	telemetry.Open(r)
	opened, closed := telemetry.metrics.handles(r).opened, telemetry.metrics.handles(r).closed
	if value(t, opened) != 1 || value(t, closed) != 0 {
		t.Error("want one open connection")
	}
	telemetry.Observe(r)
	if value(t, opened) != 1 || value(t, closed) != 1 {
		t.Error("want one closed connection")
	}
}

// children counts the contexts that are derived from it and live.
type children struct {
	context.Context
	done chan struct{} // its own, so that children ask AfterFunc
	n    int
}

func (c *children) Done() <-chan struct{} { return c.done }

func (c *children) AfterFunc(func()) func() bool {
	c.n++
	return func() bool { c.n--; return true }
}

// away is an agent that cannot be reached.
type away struct{}

func (away) StreamLoadStats(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[lrsv3.LoadStatsRequest, lrsv3.LoadStatsResponse], error) {
	return nil, errors.New("away")
}

// While the agent is away there is an attempt a second; none leaves anything behind.
func TestReportLeavesNothingBehind(t *testing.T) {
	telemetry, _ := New(Config{})
	ctx := &children{Context: t.Context(), done: make(chan struct{})}
	for range 3 {
		if err := telemetry.reportStream(ctx, ReportConfig{}, away{}); err == nil {
			t.Fatal("no error")
		}
	}
	if ctx.n != 0 {
		t.Errorf("%d contexts are left", ctx.n)
	}
}
