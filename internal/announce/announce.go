package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

// Target is the agent.
type Target struct {
	Address   string           // host:port
	Authorize trust.Authorizer // of the agent's identity
}

// Config of Run.
type Config struct {
	Target Target
	Source trust.Source
	// Announcement is what to announce; nil in it means nothing yet. Values are not modified after Set.
	Announcement *watch.Value[*periplusv1.AnnounceRequest]
	// Status receives what became of it; may be nil.
	Status *watch.Value[Status]
	// Dial connects to Target.Address; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// BackoffMax bounds the wait between two attempts, jitter excluded; 0: 5 s.
	BackoffMax time.Duration
	// Keepalive is how long the connection may be silent before it is probed, and how long the probe may take.
	// gRPC raises anything below 10 s to 10 s; 0: 10 s.
	Keepalive time.Duration
	Log       *slog.Logger // nil: discards
}

// Status is what the agent made of the announcement.
type Status struct {
	Connected bool
	// Acknowledged is the last announcement that the agent answered on the present stream; nil: none.
	Acknowledged *periplusv1.AnnounceRequest
	Keys         []string                // objects that it became
	Rejections   []*periplusv1.Rejection // parts that the agent refused
}

func (c *Config) validate() error {
	switch {
	case c.Target.Address == "" || c.Target.Authorize == nil:
		return errors.New("announce: config needs a target address and authorizer")
	case c.Source == nil || c.Announcement == nil:
		return errors.New("announce: config needs a source and an announcement")
	}
	if c.Status == nil {
		c.Status = new(watch.Value[Status])
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if c.BackoffMax <= 0 {
		c.BackoffMax = 5 * time.Second
	}
	if c.Keepalive <= 0 {
		c.Keepalive = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// firstBackoff bounds the back-off of who was never answered: a mesh that starts is complete soon after its agent is
// there.
const firstBackoff = time.Second

// Run announces until ctx ends, and then returns nil. An error is a mistake in c; no fault of the network ends it.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+c.Target.Address, c.dialOptions()...)
	if err != nil {
		return fmt.Errorf("announce: agent %q: %w", c.Target.Address, err)
	}
	defer conn.Close()
	client := periplusv1.NewWorkloadServiceClient(conn)
	wait := retry{max: min(c.BackoffMax, firstBackoff)}
	for ctx.Err() == nil {
		answered, err := c.stream(ctx, client)
		c.Status.Set(Status{})
		if ctx.Err() != nil {
			break
		}
		if answered {
			wait = retry{max: c.BackoffMax}
		}
		c.Log.Warn("announcement stream lost; endpoints last announced stand for the agent's grace period",
			"peer", c.Target.Address, "err", err)
		wait.sleep(ctx)
	}
	return nil
}

func (c *Config) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(trust.ClientConfig(c.Source, c.Target.Authorize))),
		grpc.WithContextDialer(c.Dial),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: c.Keepalive, Timeout: c.Keepalive}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: min(c.BackoffMax, firstBackoff)}, // between streams it is ours
			MinConnectTimeout: 5 * time.Second,
		}),
	}
}

// stream lives as long as one stream does; answered tells whether the agent ever answered on it.
func (c *Config) stream(ctx context.Context, client periplusv1.WorkloadServiceClient) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // an attempt that fails must leave nothing with the caller's context
	group, ctx := errgroup.WithContext(ctx)
	stream, err := client.Announce(ctx)
	if err != nil {
		return false, err
	}
	sent := make(chan *periplusv1.AnnounceRequest, 64) // announced and not answered yet; a full one stops sending
	group.Go(func() error { return c.send(ctx, stream, sent) })
	group.Go(func() error { return c.receive(ctx, stream, sent, &answered) })
	err = group.Wait()
	return answered, err
}

func (c *Config) send(ctx context.Context, stream periplusv1.WorkloadService_AnnounceClient, sent chan<- *periplusv1.AnnounceRequest) error {
	for {
		announcement, next := c.Announcement.Get()
		if announcement != nil {
			select {
			case sent <- announcement:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := stream.Send(announcement); err != nil {
				return ctx.Err() // the stream is over: receive knows why (grpc.ClientStream.SendMsg)
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// receive relies on one answer for each announcement, in order. Answers beyond that are about the last one.
func (c *Config) receive(ctx context.Context, stream periplusv1.WorkloadService_AnnounceClient, sent <-chan *periplusv1.AnnounceRequest, answered *bool) error {
	var about *periplusv1.AnnounceRequest
	for {
		answer, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		select {
		case about = <-sent:
		default:
		}
		*answered = true
		for _, r := range answer.GetRejections() {
			c.Log.Warn("announcement refused in part", "peer", c.Target.Address, "endpoint", r.GetKey(), "err", r.GetReason())
		}
		c.Status.Set(Status{Connected: true, Acknowledged: about, Keys: answer.GetKeys(), Rejections: answer.GetRejections()})
	}
}

// retry is exponential back-off with full jitter: many proxies that lost one agent do not come back at once.
type retry struct {
	attempt int
	max     time.Duration
}

func (r *retry) sleep(ctx context.Context) {
	limit := min(r.max, 100*time.Millisecond<<min(r.attempt, 10))
	r.attempt++
	timer := time.NewTimer(limit/4 + rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
