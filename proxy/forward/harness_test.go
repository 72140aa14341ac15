package forward_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/outbound"
	"github.com/periplus-mesh/periplus/proxy/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records is an Observer that keeps copies.
type records struct {
	mu  sync.Mutex
	all []record.Record
	ch  chan struct{}
	// silent: keep none.
	silent bool
}

func (r *records) Observe(rec *record.Record) {
	if r.silent {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := *rec
	kept.Path, kept.RequestID = strings.Clone(rec.Path), strings.Clone(rec.RequestID)
	r.all = append(r.all, kept)
	select {
	case r.ch <- struct{}{}:
	default:
	}
}

// last waits for n records and returns the last.
func (r *records) last(t *testing.T, n int) record.Record {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		r.mu.Lock()
		if len(r.all) >= n {
			defer r.mu.Unlock()
			return r.all[n-1]
		}
		r.mu.Unlock()
		select {
		case <-r.ch:
		case <-deadline:
			t.Fatalf("%d records wanted", n)
		}
	}
}

// proxy is an outbound listener before some upstreams.
type proxy struct {
	address   string
	clusters  *forward.Clusters
	forwarder *forward.Forwarder
	records   *records
	config    *config.Config
	mu        sync.Mutex // Update has one caller at a time
}

type option func(*config.Config, *config.Forward, *config.Settings)

func newProxy(t testing.TB, upstreams []string, options ...option) *proxy {
	t.Helper()
	settings := &config.Settings{Name: "up", ConnectTimeout: time.Second, IdleTimeout: time.Hour}
	settings.Breakers[config.DefaultPriority] = config.Breaker{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}
	settings.Balance.Policy = config.RoundRobin
	endpoints := &config.Endpoints{Name: "up", Overprovisioning: 140, Localities: []config.Locality{{Region: "eu", Weight: 1}}}
	for _, u := range upstreams {
		endpoints.Localities[0].Endpoints = append(endpoints.Localities[0].Endpoints, config.Endpoint{Address: netip.MustParseAddrPort(u), Weight: 1})
	}
	f := &config.Forward{Clusters: []config.WeightedCluster{{Name: "up", Weight: 1}}, TotalWeight: 1, Timeout: 10 * time.Second}
	table := &config.RouteTable{Name: "outbound", VirtualHosts: []*config.VirtualHost{{
		Name: "up", Domains: []string{"up", "up:80"}, IncludeAttempts: true,
		Routes: []*config.Route{{Name: "all", Match: config.RouteMatch{Path: config.PathMatch{Value: "/"}}, Forward: f}},
	}}}
	h := &config.HTTP{Routes: table, IdleTimeout: time.Hour, MaxHeaderKiB: 60}
	l := &config.Listener{Name: "outbound_http", Direction: config.Outbound, Chains: []*config.FilterChain{{HTTP: h}}}
	c := &config.Config{Ready: true, Listeners: map[string]*config.Listener{l.Name: l}, Clusters: map[string]*config.Cluster{"up": {Name: "up", Settings: settings, Endpoints: endpoints}}}
	for _, o := range options {
		o(c, f, settings)
	}
	p := &proxy{clusters: forward.NewClusters(forward.ClustersConfig{}), records: &records{ch: make(chan struct{}, 1)}, config: c}
	p.clusters.Update(c)
	p.forwarder = forward.New(forward.Config{Clusters: p.clusters, Observer: p.records})
	p.address = serve(t, p, outbound.New(outbound.Config{Forwarder: p.forwarder}), l)
	return p
}

func serve(t testing.TB, p *proxy, o *outbound.Outbound, l *config.Listener) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.clusters.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { o.ServeConn(ctx, conn, l) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.forwarder.CloseIdle()
		gone, stop := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
		defer stop()
		p.forwarder.Wait(gone)
		cancel()
		running.Wait()
	})
	return ln.Addr().String()
}

func upstream(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// raw accepts connections and hands each, with its number, to f.
func raw(t *testing.T, f func(i int, c net.Conn, r *bufio.Reader)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for i := 0; ; i++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				f(i, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); running.Wait() })
	return ln.Addr().String()
}

// talk sends text and returns all that comes back until the connection ends.
func talk(t *testing.T, address, text string) string {
	t.Helper()
	c := dial(t, address)
	_, _ = io.WriteString(c, text)
	out, _ := io.ReadAll(c)
	return string(out)
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func want(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%q lacks %q", got, p)
		}
	}
}
