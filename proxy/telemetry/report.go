package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	lrsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/periplus-mesh/periplus/trust"
)

// ReportConfig says where load reports go.
type ReportConfig struct {
	Address   string           // host:port of the agent
	Authorize trust.Authorizer // of its identity
	Source    trust.Source
	Node      *corev3.Node
	// InProgress calls yield for every host with requests that run; nil: they are not reported.
	InProgress func(yield func(Running))
	// Dial connects to Address; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	Log  *slog.Logger // nil: discards
}

// Running is how many requests run on a host of an Envoy cluster.
type Running struct {
	Cluster, Region, Zone, Subzone string
	Priority                       uint32
	Requests                       uint64
}

const (
	minReportInterval = 100 * time.Millisecond
	maxReportInterval = 10 * time.Minute
	defaultInterval   = 10 * time.Second
	reportBackoff     = 2 * time.Second
)

func (c *ReportConfig) validate() error {
	if c.Address == "" || c.Authorize == nil || c.Source == nil || c.Node == nil {
		return errors.New("telemetry: report config needs address, authorizer, source and node")
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if c.InProgress == nil {
		c.InProgress = func(func(Running)) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Report sends load reports by LRS at the interval that the server asks for, until ctx ends; then it returns nil.
// What cannot be sent is kept for the next stream.
func (t *Telemetry) Report(ctx context.Context, c ReportConfig) error {
	if err := c.validate(); err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+c.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(trust.ClientConfig(c.Source, c.Authorize))),
		grpc.WithContextDialer(c.Dial),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		return fmt.Errorf("telemetry: agent %q: %w", c.Address, err)
	}
	defer conn.Close()
	for ctx.Err() == nil {
		err := t.reportStream(ctx, c, lrsv3.NewLoadReportingServiceClient(conn))
		if ctx.Err() == nil {
			c.Log.Debug("load report stream lost", "peer", c.Address, "err", err)
			pause(ctx, reportBackoff/2+rand.N(reportBackoff))
		}
	}
	return nil
}

func (t *Telemetry) reportStream(ctx context.Context, c ReportConfig, client lrsv3.LoadReportingServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that did not begin must leave nothing behind: there may be one a second, for days
	group, ctx := errgroup.WithContext(ctx)
	stream, err := client.StreamLoadStats(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&lrsv3.LoadStatsRequest{Node: c.Node}); err != nil {
		return err
	}
	intervals := make(chan time.Duration, 1)
	group.Go(func() error {
		for {
			answer, err := stream.Recv()
			if err != nil {
				return err
			}
			select {
			case intervals <- interval(answer):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error { return t.sendReports(ctx, c, stream, intervals) })
	return group.Wait()
}

func interval(answer *lrsv3.LoadStatsResponse) time.Duration {
	if answer.GetLoadReportingInterval() == nil {
		return defaultInterval
	}
	return min(max(answer.GetLoadReportingInterval().AsDuration(), minReportInterval), maxReportInterval)
}

// sendReports sends nothing before the server has asked for it.
func (t *Telemetry) sendReports(ctx context.Context, c ReportConfig, stream lrsv3.LoadReportingService_StreamLoadStatsClient, intervals <-chan time.Duration) error {
	var every time.Duration
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	timer.Stop()
	last := time.Now()
	for {
		select {
		case every = <-intervals:
			timer.Reset(every)
			continue
		case <-timer.C:
			timer.Reset(every)
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		reports := t.load.take(now.Sub(last), c.InProgress)
		last = now
		if err := stream.Send(&lrsv3.LoadStatsRequest{Node: c.Node, ClusterStats: reports}); err != nil {
			t.load.restore(reports)
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
