package load

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Interval is how often each proxy is asked to report.
const Interval = 2 * time.Second

// Register offers LRS on s.
func (a *Aggregator) Register(s grpc.ServiceRegistrar) {
	loadv3.RegisterLoadReportingServiceServer(s, &server{aggregator: a})
}

type server struct {
	loadv3.UnimplementedLoadReportingServiceServer
	aggregator *Aggregator
}

// StreamLoadStats asks once, and counts what comes. The node stands in the first request only.
func (s *server) StreamLoadStats(stream loadv3.LoadReportingService_StreamLoadStatsServer) error {
	var locality *corev3.Locality
	for first := true; ; first = false {
		request, err := stream.Recv()
		if err != nil {
			return nil // the proxy went away
		}
		if request.GetNode() != nil {
			locality = request.GetNode().GetLocality()
		}
		for _, stats := range request.GetClusterStats() {
			s.aggregator.Add(locality, stats)
		}
		if !first {
			continue
		}
		answer := &loadv3.LoadStatsResponse{SendAllClusters: true, LoadReportingInterval: durationpb.New(Interval)}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}
