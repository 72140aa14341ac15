package announce

import (
	"context"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent hands every announcement to the test and answers it.
type agent struct {
	periplusv1.UnimplementedWorkloadServiceServer
	got chan *periplusv1.AnnounceRequest
}

func (a *agent) Announce(stream grpc.BidiStreamingServer[periplusv1.AnnounceRequest, periplusv1.AnnounceResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil
		}
		a.got <- request
		answer := &periplusv1.AnnounceResponse{Keys: []string{request.GetName()},
			Rejections: []*periplusv1.Rejection{{Key: "k", Reason: "because"}}}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func start(t *testing.T, a *agent, ca *trusttest.CA, address string) (*grpc.Server, string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(trust.ServerConfig(ca.Source("/periplus/agent", time.Hour), trust.AuthorizeAny))))
	periplusv1.RegisterWorkloadServiceServer(server, a)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return server, listener.Addr().String()
}

func receive(t *testing.T, a *agent) *periplusv1.AnnounceRequest {
	t.Helper()
	select {
	case r := <-a.got:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no announcement")
		return nil
	}
}

func run(t *testing.T, c Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestAnnouncesOnChangeAndReconnect(t *testing.T) {
	ca, a := trusttest.NewCA("eu-west.mesh"), &agent{got: make(chan *periplusv1.AnnounceRequest)}
	server, address := start(t, a, ca, "127.0.0.1:0")
	announcement, status := watch.New[*periplusv1.AnnounceRequest](nil), new(watch.Value[Status])
	stop := run(t, Config{
		Target: Target{Address: address, Authorize: trust.AuthorizeOneOf(ca.SVID("/periplus/agent", time.Hour).ID)},
		Source: ca.Source("/ns/shop/sa/cart", time.Hour), Announcement: announcement, Status: status, BackoffMax: 50 * time.Millisecond,
	})
	defer stop()
	first := &periplusv1.AnnounceRequest{Name: "a", Health: periplusv1.Health_HEALTH_HEALTHY}
	announcement.Set(first)
	if r := receive(t, a); r.GetName() != "a" {
		t.Fatal(r)
	}
	acknowledged(t, status, first)
	last := &periplusv1.AnnounceRequest{Name: "a", Health: periplusv1.Health_HEALTH_DRAINING}
	announcement.Set(last)
	if r := receive(t, a); r.GetHealth() != periplusv1.Health_HEALTH_DRAINING {
		t.Fatal(r)
	}
	acknowledged(t, status, last)
	if s := status.Latest(); len(s.Rejections) != 1 || s.Keys[0] != "a" || !s.Connected {
		t.Fatalf("%+v", s)
	}
	server.Stop()
	start(t, a, ca, address)
	if r := receive(t, a); r.GetHealth() != periplusv1.Health_HEALTH_DRAINING {
		t.Fatal("the last announcement did not come again", r)
	}
}

func acknowledged(t *testing.T, status *watch.Value[Status], want *periplusv1.AnnounceRequest) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		s, next := status.Get()
		if s.Acknowledged == want {
			return
		}
		select {
		case <-next:
		case <-timeout:
			t.Fatalf("not acknowledged: %+v", s)
		}
	}
}

func TestWrongAgentHearsNothing(t *testing.T) {
	ca, a := trusttest.NewCA("eu-west.mesh"), &agent{got: make(chan *periplusv1.AnnounceRequest)}
	_, address := start(t, a, ca, "127.0.0.1:0")
	refused := make(chan struct{}, 100)
	stop := run(t, Config{
		Target: Target{Address: address, Authorize: trust.AuthorizeOneOf(ca.SVID("/other", time.Hour).ID)},
		Source: ca.Source("/ns/shop/sa/cart", time.Hour), Announcement: watch.New(&periplusv1.AnnounceRequest{Name: "a"}),
		BackoffMax: 10 * time.Millisecond,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			refused <- struct{}{}
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
	})
	defer stop()
	for range 3 { // it keeps trying
		<-refused
	}
	select {
	case r := <-a.got:
		t.Fatalf("announced to a stranger: %v", r)
	default:
	}
}

// holder is a context that counts what waits for its end.
type holder struct {
	context.Context
	done chan struct{}

	mu      sync.Mutex
	next    int
	waiting map[int]func()
}

func (h *holder) Done() <-chan struct{} { return h.done }
func (h *holder) Value(any) any         { return nil }

func (h *holder) Err() error {
	select {
	case <-h.done:
		return context.Canceled
	default:
		return nil
	}
}

// AfterFunc is what package context asks of a context that is not its own.
func (h *holder) AfterFunc(f func()) (stop func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.next
	h.next++
	h.waiting[n] = f
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		_, there := h.waiting[n]
		delete(h.waiting, n)
		return there
	}
}

func (h *holder) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting)
}

func (h *holder) cancel() {
	close(h.done)
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.waiting))
	h.mu.Unlock()
	for _, f := range all {
		f()
	}
}

// A proxy whose agent is away for days does not grow with each attempt.
func TestAttemptsLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, network := trusttest.NewCA("east.mesh"), new(memnet.Network)
		ctx := &holder{Context: t.Context(), done: make(chan struct{}), waiting: map[int]func(){}}
		done := make(chan error, 1)
		go func() {
			done <- Run(ctx, Config{
				Target: Target{Address: "agent:1", Authorize: trust.AuthorizeAny}, Source: ca.Source("/p1", time.Hour),
				Announcement: watch.New(&periplusv1.AnnounceRequest{Name: "p1"}), Dial: network.From("p1"),
			})
		}()
		time.Sleep(5 * time.Minute)
		if n := ctx.count(); n > 2 {
			t.Errorf("%d contexts of attempts are left", n)
		}
		ctx.cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	if err := Run(t.Context(), Config{}); err == nil || err == io.EOF {
		t.Fatal(err)
	}
}

// An agent that comes late is told soon.
func TestFirstAnnouncementIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, network := trusttest.NewCA("east.mesh"), new(memnet.Network)
		announcement := watch.New(&periplusv1.AnnounceRequest{Name: "p1"})
		a := &agent{got: make(chan *periplusv1.AnnounceRequest, 1)}
		defer run(t, Config{
			Target: Target{Address: "agent:1", Authorize: trust.AuthorizeAny}, Source: ca.Source("/p1", 24*time.Hour),
			Announcement: announcement, Dial: network.From("p1"),
		})()
		time.Sleep(time.Minute)
		listener, err := network.Listen("agent:1")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(trust.ServerConfig(ca.Source("/periplus/agent", 24*time.Hour), trust.AuthorizeAny))))
		periplusv1.RegisterWorkloadServiceServer(server, a)
		go server.Serve(listener)
		defer server.Stop()
		time.Sleep(3 * time.Second) // gRPC's back-off and ours, one after the other
		select {
		case <-a.got:
		default:
			t.Error("not announced after 3 s")
		}
	})
}
