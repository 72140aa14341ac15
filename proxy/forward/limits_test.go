package forward_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/record"
)

const once = "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("never %s", what)
		}
	}
}

// held is an application that answers when it is released.
func held(t *testing.T) (address string, entered, release chan struct{}) {
	entered, release = make(chan struct{}, 10), make(chan struct{})
	return upstream(t, func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}), entered, release
}

func oneConnection(_ *config.Config, _ *config.Forward, s *config.Settings) {
	s.Breakers[0].MaxConnections, s.Breakers[0].MaxPending = 1, 1
}

func TestRequestsWaitForAConnection(t *testing.T) {
	up, entered, release := held(t)
	p := newProxy(t, []string{up}, oneConnection)
	first, second := dial(t, p.address), dial(t, p.address)
	fmt.Fprint(first, once)
	<-entered
	fmt.Fprint(second, once)
	breaker := p.clusters.View().Cluster("up").Set.Breaker()
	eventually(t, "pending", func() bool { return breaker.Pending.Used() == 1 })
	want(t, talk(t, p.address, once), "503", "reset reason: overflow")
	if r := p.records.last(t, 1); r.Flags != record.Overflow {
		t.Errorf("%+v", r)
	}
	close(release)
	for _, c := range []io.Reader{first, second} {
		got, _ := io.ReadAll(c)
		want(t, string(got), "200 OK")
	}
	eventually(t, "idle", func() bool { return breaker.Pending.Used() == 0 && breaker.Requests.Used() == 0 })
}

func TestWaitingForAConnectionTimesOut(t *testing.T) {
	up, entered, release := held(t)
	p := newProxy(t, []string{up}, oneConnection, func(_ *config.Config, f *config.Forward, _ *config.Settings) { f.Timeout = 100 * time.Millisecond })
	first := dial(t, p.address)
	fmt.Fprint(first, "GET / HTTP/1.1\r\nHost: up\r\n\r\n")
	<-entered
	want(t, talk(t, p.address, once), "504")
	close(release)
}

// An idle connection to one host does not keep another host from being called.
func TestIdleConnectionGivesWay(t *testing.T) {
	hello := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	p := newProxy(t, []string{upstream(t, hello), upstream(t, hello)}, oneConnection)
	for range 6 {
		want(t, talk(t, p.address, once), "200 OK")
	}
	if used := p.clusters.View().Cluster("up").Set.Breaker().Connections.Used(); used != 1 {
		t.Errorf("%d connections", used)
	}
}

func httpOf(c *config.Config) *config.HTTP { return c.Listeners["outbound_http"].Chains[0].HTTP }

func TestHeadLimitIsTheConfigured(t *testing.T) {
	up := upstream(t, func(http.ResponseWriter, *http.Request) {})
	for kib, code := range map[uint32]string{1: "431", 60: "431", 128: "200 OK"} {
		p := newProxy(t, []string{up}, func(c *config.Config, _ *config.Forward, _ *config.Settings) { httpOf(c).MaxHeaderKiB = kib })
		want(t, talk(t, p.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\nX-Long: "+strings.Repeat("a", 70<<10)+"\r\n\r\n"), code)
	}
}

func TestRequestTimeout(t *testing.T) {
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	timeout := func(c *config.Config, _ *config.Forward, _ *config.Settings) {
		httpOf(c).RequestTimeout = 50 * time.Millisecond
	}
	for name, options := range map[string][]option{
		"streamed": {timeout}, "kept for a retry": {timeout, retry(config.RetryConnectFailure, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, []string{up}, options...)
			got := talk(t, p.address, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 10\r\n\r\nabc")
			want(t, got, "408 Request Timeout", "Connection: close", "request timeout")
			if r := p.records.last(t, 1); r.Code != 408 || r.Details != "request_overall_timeout" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A body may take longer than the idle timeout, as long as it moves.
func TestSlowBodyIsNotIdle(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	p := newProxy(t, []string{up}, func(c *config.Config, _ *config.Forward, _ *config.Settings) {
		httpOf(c).StreamIdleTimeout = 400 * time.Millisecond
	})
	c := dial(t, p.address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 10\r\nConnection: close\r\n\r\n")
	for range 10 {
		time.Sleep(80 * time.Millisecond)
		fmt.Fprint(c, "x")
	}
	got, _ := io.ReadAll(c)
	want(t, string(got), "200 OK", "\r\n\r\n10")
	got = []byte(talk(t, p.address, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 10\r\n\r\nabc"))
	want(t, string(got), "408", "stream timeout")
	if r := p.records.last(t, 2); r.Flags != record.StreamIdle {
		t.Errorf("%+v", r)
	}
}

func TestHTTP1IsNotTranslatedToHTTP2(t *testing.T) {
	up := upstream(t, func(http.ResponseWriter, *http.Request) { t.Error("called") })
	p := newProxy(t, []string{up}, func(_ *config.Config, _ *config.Forward, s *config.Settings) { s.Protocol = config.UpstreamHTTP2 })
	want(t, talk(t, p.address, once), "502 Bad Gateway", "HTTP/2 only")
	if r := p.records.last(t, 1); r.Flags != record.UpstreamProtocol {
		t.Errorf("%+v", r)
	}
}

// A connection that the listener would not take any more serves the request that has come, and ends.
func TestOutdatedConnectionEnds(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	kept := "GET / HTTP/1.1\r\nHost: up\r\n\r\n"
	for name, change := range map[string]func(*config.Listener){
		"gone":       nil,
		"chain gone": func(l *config.Listener) { l.Chains = nil },
		"asks for TLS": func(l *config.Listener) {
			l.Chains[0].TLS = &config.DownstreamTLS{RequireClient: true}
		},
		"other routes": func(l *config.Listener) {},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, []string{up})
			c := dial(t, p.address)
			fmt.Fprint(c, kept)
			buf := make([]byte, 1<<10)
			n, _ := c.Read(buf)
			want(t, string(buf[:n]), "200 OK")
			next, l := *p.config, *p.config.Listeners["outbound_http"]
			chain, h := *l.Chains[0], *l.Chains[0].HTTP
			chain.HTTP, l.Chains = &h, []*config.FilterChain{&chain}
			next.Listeners = map[string]*config.Listener{}
			if change != nil {
				change(&l)
				next.Listeners[l.Name] = &l
			}
			p.update(&next)
			fmt.Fprint(c, kept)
			if name == "other routes" {
				n, _ = c.Read(buf)
				want(t, string(buf[:n]), "200 OK")
				fmt.Fprint(c, once)
			}
			got, _ := io.ReadAll(c)
			want(t, string(got), "200 OK", "Connection: close")
		})
	}
}

type panicking struct{ *records }

func (p panicking) Observe(*record.Record) { panic("a mistake of ours") }

// A panic ends its connections and gives back what was counted.
func TestPanicLeavesNothingBehind(t *testing.T) {
	gone := make(chan struct{})
	up := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
		_, _ = r.ReadByte()
		close(gone)
	})
	p := newProxy(t, []string{up})
	view := p.clusters.View()
	l := view.Config.Listeners["outbound_http"]
	f := forward.New(forward.Config{Clusters: p.clusters, Observer: panicking{p.records}})
	server, client := net.Pipe()
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		f.ServeHTTP1(t.Context(), server, nil, forward.Connection{Listener: l, HTTP: httpOf(p.config)})
	}()
	go fmt.Fprint(client, once)
	buf := make([]byte, 1<<10)
	n, _ := client.Read(buf)
	want(t, string(buf[:n]), "200 OK")
	client.Close()
	if r := <-done; r != "a mistake of ours" {
		t.Errorf("recovered %v", r)
	}
	<-gone
	breaker := view.Cluster("up").Set.Breaker()
	if breaker.Requests.Used() != 0 || breaker.Connections.Used() != 0 {
		t.Errorf("%d requests, %d connections", breaker.Requests.Used(), breaker.Connections.Used())
	}
	f.Wait(t.Context())
}

// What an operation says of a field holds for those that the proxy itself adds.
func TestHeaderOperationsMeetOurOwn(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q %q", r.Header["X-Forwarded-Proto"], r.Header["X-Request-Id"], r.Header["X-Twice"])
	})
	p := newProxy(t, []string{up}, func(_ *config.Config, f *config.Forward, _ *config.Settings) {
		f.Clusters[0].Headers = config.HeaderOps{RemoveRequest: []string{"x-request-id"}, Request: []config.HeaderOp{
			{Name: "x-forwarded-proto", Value: "https", Action: config.OverwriteOrAdd},
			{Name: "x-twice", Value: "1", Action: config.OverwriteOrAdd}, {Name: "x-twice", Value: "2", Action: config.OverwriteOrAdd},
		}}
	})
	want(t, talk(t, p.address, once), `["https"] [] ["2"]`)
}

// Once the response has begun the request may take as long as it wants.
func TestRequestTimeoutEndsWithTheResponse(t *testing.T) {
	up := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		n, _ := io.Copy(io.Discard, q.Body)
		fmt.Fprint(c, n)
	})
	p := newProxy(t, []string{up}, func(c *config.Config, _ *config.Forward, _ *config.Settings) {
		httpOf(c).RequestTimeout = 100 * time.Millisecond
	})
	c := dial(t, p.address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 10\r\n\r\n")
	for range 10 {
		time.Sleep(30 * time.Millisecond)
		fmt.Fprint(c, "x")
	}
	got, _ := io.ReadAll(c)
	want(t, string(got), "200 OK", "\r\n\r\n10")
}
