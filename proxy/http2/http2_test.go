package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records keeps what is observed.
type records struct {
	mu  sync.Mutex
	all []record.Record
}

func (r *records) Observe(x *record.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, *x)
}

// bench is a client, the server under test and an application.
type bench struct {
	server  *Server
	records records
	client  *http.Client
	url     string
}

func h2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

func newBench(t *testing.T, app http.Handler, change func(*config.Forward, *config.Settings)) *bench {
	t.Helper()
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := h2Only()
	protocols.SetHTTP1(true)
	application := &http.Server{Handler: app, Protocols: protocols}
	go application.Serve(upstream)
	forwarding := &config.Forward{Clusters: []config.WeightedCluster{{Name: "c", Weight: 1}}, TotalWeight: 1}
	settings := &config.Settings{Name: "c", ConnectTimeout: time.Second, Protocol: config.UpstreamHTTP2, Balance: config.Balance{RingMax: 1024},
		Breakers: [2]config.Breaker{{MaxConnections: 100, MaxPending: 100, MaxRequests: 100, MaxRetries: 3}}}
	if change != nil {
		change(forwarding, settings)
	}
	h := &config.HTTP{MaxHeaderKiB: 60, MaxConcurrentStreams: 100, Routes: &config.RouteTable{VirtualHosts: []*config.VirtualHost{{
		Name: "v", Domains: []string{"*"}, Routes: []*config.Route{{Match: config.RouteMatch{Path: config.PathMatch{Value: "/"}}, Forward: forwarding}}}}}}
	l := &config.Listener{Name: "l", Chains: []*config.FilterChain{{HTTP: h}}}
	clusters := forward.NewClusters(forward.ClustersConfig{})
	clusters.Update(&config.Config{Listeners: map[string]*config.Listener{"l": l}, Clusters: map[string]*config.Cluster{"c": {Name: "c", Settings: settings,
		Endpoints: &config.Endpoints{Overprovisioning: 140, Localities: []config.Locality{{Endpoints: []config.Endpoint{
			{Address: netip.MustParseAddrPort(upstream.Addr().String()), Weight: 1}}}}}}}})
	b := &bench{}
	b.server = New(Config{Clusters: clusters, Observer: &b.records})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = b.server.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				b.server.ServeConn(ctx, conn, forward.Connection{Reporter: record.Source, Listener: l, HTTP: h})
			})
		}
	})
	transport := &http.Transport{Protocols: h2Only()}
	b.client, b.url = &http.Client{Transport: transport, Timeout: 20 * time.Second}, "http://"+listener.Addr().String()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		listener.Close()
		ended, end := context.WithTimeout(context.Background(), time.Second)
		defer end()
		b.server.Drain(t.Context())
		b.server.Wait(ended)
		cancel()
		running.Wait()
		application.Close()
	})
	return b
}

func TestBodiesHeadersAndTrailersPass(t *testing.T) {
	for _, protocol := range []config.Protocol{config.UpstreamHTTP2, config.UpstreamHTTP1} {
		b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			w.Header().Set("X-Path", r.RequestURI)
			w.Header().Set("X-Proto", r.Proto)
			_ = http.NewResponseController(w).EnableFullDuplex() // over HTTP/1.1 net/http stops reading otherwise
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("X-Sum", fmt.Sprint(n))
		}), func(_ *config.Forward, s *config.Settings) { s.Protocol = protocol })
		response, err := b.client.Post(b.url+"/a//b/../c?q=%20", "text/plain", io.LimitReader(zeros{}, 3<<20))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		if err != nil || n != 3<<20 || response.Trailer.Get("X-Sum") != fmt.Sprint(3<<20) || response.Header.Get("X-Path") != "/a/c?q=%20" {
			t.Errorf("%d bytes, %v, %v %v", n, err, response.Trailer, response.Header)
		}
		if want := map[config.Protocol]string{config.UpstreamHTTP2: "HTTP/2.0", config.UpstreamHTTP1: "HTTP/1.1"}[protocol]; response.Header.Get("X-Proto") != want {
			t.Errorf("upstream spoke %s", response.Header.Get("X-Proto"))
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestARetryReplaysTheBody(t *testing.T) {
	var calls atomic.Int64
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if calls.Add(1) < 3 {
			w.WriteHeader(503)
			return
		}
		_, _ = w.Write(body)
	}), func(f *config.Forward, _ *config.Settings) {
		f.Retry = &config.RetryPolicy{On: config.Retry5xx, Attempts: 2, BackoffBase: time.Millisecond, BackoffMax: time.Millisecond}
	})
	response, err := b.client.Post(b.url+"/", "text/plain", io.MultiReader(strings.NewReader("again "), strings.NewReader("and again")))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 200 || string(body) != "again and again" || calls.Load() != 3 {
		t.Errorf("%d %q after %d calls", response.StatusCode, body, calls.Load())
	}
}

func TestACutResponseIsCut(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), nil)
	response, err := b.client.Get(b.url + "/")
	if err == nil {
		_, err = io.ReadAll(response.Body)
	}
	if err == nil {
		t.Error("a response that was cut looks whole")
	}
}

func TestTimeoutIsAnswered(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		func(f *config.Forward, _ *config.Settings) { f.Timeout = 20 * time.Millisecond })
	response, err := b.client.Get(b.url + "/")
	if err != nil || response.StatusCode != 504 {
		t.Errorf("%v %v", response, err)
	}
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	began, go1 := make(chan struct{}), make(chan struct{})
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-go1
		_, _ = io.WriteString(w, "done")
	}), nil)
	result := make(chan error, 1)
	go func() {
		response, err := b.client.Get(b.url + "/")
		if err == nil {
			if body, _ := io.ReadAll(response.Body); string(body) != "done" {
				err = errors.New(string(body))
			}
		}
		result <- err
	}()
	<-began
	b.server.Drain(t.Context())
	close(go1)
	if err := <-result; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b.server.Wait(ctx)
	if ctx.Err() != nil {
		t.Error("the connection did not end by itself")
	}
}

func TestWhoAbandonsTooManyStreamsIsSentAway(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), nil)
	abandoned := func() map[netip.AddrPort]int { // by connection
		b.records.mu.Lock()
		defer b.records.mu.Unlock()
		seen := map[netip.AddrPort]int{}
		for i := range b.records.all {
			if b.records.all[i].Flags&record.DownstreamGone != 0 {
				seen[b.records.all[i].Downstream]++
			}
		}
		return seen
	}
	deadline := time.Now().Add(20 * time.Second)
	var work sync.WaitGroup
	for range 20 {
		work.Go(func() {
			for len(abandoned()) < 2 && time.Now().Before(deadline) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				request, _ := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/", nil)
				if response, err := b.client.Do(request); err == nil {
					response.Body.Close()
				}
				cancel()
			}
		})
	}
	work.Wait()
	seen := abandoned()
	if len(seen) < 2 {
		t.Errorf("%v: nobody was sent away", seen)
	}
	for conn, n := range seen { // those that run when GOAWAY is said finish
		if n > resetBudget+100 {
			t.Errorf("%d streams on %v", n, conn)
		}
	}
}

// A stream whose goroutine starts when the connection is over is nobody's.
func TestLateStreamDoesNotBegin(t *testing.T) {
	var s session
	if !s.enter() {
		t.Fatal("refused")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.end()
	}()
	select {
	case <-ended:
		t.Fatal("ended while a stream runs")
	case <-time.After(20 * time.Millisecond):
	}
	s.running.Done()
	<-ended
	s.ServeHTTP(nil, nil)
}

// A policy that arrives holds for the next stream of a connection that is kept open.
func TestKeptConnectionFollowsItsListener(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil)
	if code := b.status(t); code != 200 {
		t.Fatal(code)
	}
	clusters := b.server.config.Clusters
	first := clusters.View().Config
	denying, l := *first.Listeners["l"].Chains[0].HTTP, *first.Listeners["l"]
	denying.RBAC = []*config.RBAC{{Action: config.RBACAllow}}
	l.Chains = []*config.FilterChain{{HTTP: &denying}}
	next, gone := *first, *first
	next.Listeners, gone.Listeners = map[string]*config.Listener{"l": &l}, nil
	for _, step := range []struct {
		config *config.Config
		want   int
	}{{&next, 403}, {first, 200}, {&gone, 200}} {
		clusters.Update(step.config)
		if code := b.status(t); code != step.want {
			t.Errorf("%d, want %d", code, step.want)
		}
	}
	b.records.mu.Lock()
	defer b.records.mu.Unlock()
	for i := range b.records.all {
		if b.records.all[i].Downstream != b.records.all[0].Downstream {
			t.Error("the connection was not kept")
		}
	}
}

func (b *bench) status(t *testing.T) int {
	t.Helper()
	response, err := b.client.Get(b.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.StatusCode
}

func TestRequestTimeoutIsAnswered(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }), nil)
	clusters := b.server.config.Clusters
	l := *clusters.View().Config.Listeners["l"]
	limited := *l.Chains[0].HTTP
	limited.RequestTimeout = 50 * time.Millisecond
	l.Chains = []*config.FilterChain{{HTTP: &limited}}
	next := *clusters.View().Config
	next.Listeners = map[string]*config.Listener{"l": &l}
	clusters.Update(&next)
	body, more := io.Pipe()
	defer more.Close()
	response, err := b.client.Post(b.url+"/", "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout {
		t.Error(response.Status)
	}
}

// Over HTTP/1.1 to the upstream, requests wait for the one connection that the cluster may have.
func TestRequestsWaitForAConnection(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(5 * time.Millisecond) }),
		func(_ *config.Forward, s *config.Settings) {
			s.Protocol, s.Breakers[0].MaxConnections = config.UpstreamHTTP1, 1
		})
	var work sync.WaitGroup
	for range 10 {
		work.Go(func() {
			if response, err := b.client.Get(b.url + "/"); err != nil || response.StatusCode != 200 {
				t.Errorf("%v %v", response, err)
			} else {
				response.Body.Close()
			}
		})
	}
	work.Wait()
}

func TestGRPCStatuses(t *testing.T) {
	for status, want := range map[int]int{200: 0, 400: 13, 403: 7, 404: 12, 503: 14, 504: 14} {
		if grpcOf[status] != want {
			t.Errorf("%d: %d", status, grpcOf[status])
		}
	}
	if got := grpcMessage("50% ü\n"); got != "50%25 %C3%BC%0A" {
		t.Error(got)
	}
}

func TestReplayHandsOnWhatAnAbandonedReaderRead(t *testing.T) {
	source, feed := io.Pipe()
	body := newReplay(source, 100, func() {})
	first := body.reader()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = first.Read(make([]byte, 100)) // blocked in the source when the next attempt begins
	}()
	go func() {
		_, _ = feed.Write([]byte("hello "))
		_, _ = feed.Write([]byte("world"))
		feed.Close()
	}()
	<-done
	got, err := io.ReadAll(body.reader())
	if err != nil || string(got) != "hello world" {
		t.Errorf("%q %v", got, err)
	}
}
