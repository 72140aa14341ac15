package forward_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
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
