package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

// Config of a reporter. All fields without a stated zero are needed.
type Config struct {
	Owner own.Owner
	Store *mesh.Store
	// Ready is closed once the own sources have been read; nothing is reported before.
	Ready <-chan struct{}
	// Settled is closed once what is not in the store is known to be gone.
	Settled <-chan struct{}
	// Source is the agent's credential.
	Source trust.Source
	// Authorize accepts the controllers.
	Authorize trust.Authorizer
	// Controllers are the addresses, the preferred first; asked anew for each attempt.
	Controllers func() []string
	// OnCluster is told what the controllers say of the own cluster.
	OnCluster func(*pb.Cluster)
	// OnControllers is told of the replicas of the control plane, host:port; nil: nobody is.
	OnControllers func([]string)
	// Load returns the load since it was called last; nil or a nil result: none.
	Load func(now time.Time) *pb.LoadReport
	// LoadInterval is how often; 0: 2 s.
	LoadInterval time.Duration
	// Dial connects to a controller; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// AnswerTimeout bounds the wait for a Welcome or an Ack; 0: 30 s, longer than an election takes.
	AnswerTimeout time.Duration
	// RetryMin and RetryMax bound the wait after a lost stream, before jitter; 0: 100 ms and 5 s.
	RetryMin, RetryMax time.Duration
	Version, Instance  string
	Log                *slog.Logger
	Metrics            prometheus.Registerer
}

func (c *Config) validate() error {
	switch {
	case c.Store == nil || c.Ready == nil || c.Settled == nil:
		return errors.New("report: store, ready and settled are needed")
	case c.Source == nil || c.Authorize == nil || c.Controllers == nil || c.OnCluster == nil:
		return errors.New("report: source, authorize, controllers and onCluster are needed")
	case c.Log == nil || c.Metrics == nil:
		return errors.New("report: log and metrics are needed")
	}
	if c.OnControllers == nil {
		c.OnControllers = func([]string) {}
	}
	if c.Load == nil {
		c.Load = func(time.Time) *pb.LoadReport { return nil }
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	setDefault(&c.LoadInterval, 2*time.Second)
	setDefault(&c.AnswerTimeout, 30*time.Second)
	setDefault(&c.RetryMin, 100*time.Millisecond)
	setDefault(&c.RetryMax, 5*time.Second)
	return nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Status of the report, for people.
type Status struct {
	Controller string            `json:"controller,omitempty"` // "": no stream
	Since      time.Time         `json:"since,omitzero"`       // of the stream, or of its loss
	Epoch      uint64            `json:"epoch"`
	Sequence   uint64            `json:"sequence"`
	Index      uint64            `json:"index"` // raft index of the last acknowledgement
	Had        int               `json:"had"`   // objects of the cluster that the controllers had when the stream began
	Pending    int               `json:"pending"`
	Refused    map[string]string `json:"refused,omitempty"` // key -> reason, on this stream
	Error      string            `json:"error,omitempty"`   // why the last stream ended
}

// Reporter reports.
type Reporter struct {
	config  Config
	metrics *metrics
	status  watch.Value[Status]
}

// New checks the configuration.
func New(c Config) (*Reporter, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Reporter{config: c, metrics: newMetrics(c.Metrics)}, nil
}

// Status is the latest. Its map must not be written.
func (r *Reporter) Status() Status { return r.status.Latest() }

// WatchStatus is Status, and a channel that is closed when that has changed.
func (r *Reporter) WatchStatus() (Status, <-chan struct{}) { return r.status.Get() }

// Run reports until ctx is done.
func (r *Reporter) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.config.Ready:
	}
	wait := r.config.RetryMin
	for attempt := 0; ; attempt++ {
		controllers := r.config.Controllers()
		address := controllers[attempt%len(controllers)]
		began := time.Now()
		err := r.stream(ctx, address)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > r.config.AnswerTimeout {
			wait = r.config.RetryMin // it worked for a while
		}
		r.config.Log.Warn("report interrupted; the next controller is tried", "peer", address, "err", err)
		r.status.Set(Status{Since: time.Now(), Error: fmt.Sprintf("controller %s: %v", address, err)})
		r.metrics.connected.Set(0)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait)):
		}
		if (attempt+1)%len(controllers) == 0 {
			wait = min(2*wait, r.config.RetryMax)
		}
	}
}

// stream reports to one controller until that ends; it never returns nil.
func (r *Reporter) stream(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(trust.ClientConfig(r.config.Source, r.config.Authorize))),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return r.config.Dial(ctx, address) }),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := pb.NewAgentServiceClient(connection).Report(ctx)
	if err != nil {
		return err
	}
	hello := &pb.Hello{AgentVersion: r.config.Version, Instance: r.config.Instance}
	if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: hello}}); err != nil {
		return err
	}
	answers := make(chan *pb.ReportResponse)
	lost := make(chan error, 1)
	go receive(ctx, stream, answers, lost) // ends with ctx, at the latest
	c := &conversation{reporter: r, stream: stream, cancel: cancel, address: address, answers: answers, lost: lost}
	err = c.welcome(ctx)
	if err == nil {
		err = c.run(ctx)
	}
	return cmp.Or(context.Cause(ctx), err) // what ended the stream says more than that it ended
}

func receive(ctx context.Context, stream pb.AgentService_ReportClient, answers chan<- *pb.ReportResponse, lost chan<- error) {
	for {
		answer, err := stream.Recv()
		if err != nil {
			lost <- err
			return
		}
		select {
		case answers <- answer:
		case <-ctx.Done():
			lost <- ctx.Err()
			return
		}
	}
}
