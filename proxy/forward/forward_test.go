package forward_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/record"
)

func TestKeepAliveAndPipelining(t *testing.T) {
	var conns sync.Map
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %s;", r.Method, r.URL, r.Host, b, r.Header.Get("X-Hop"))
	})
	p := newProxy(t, []string{up})
	got := talk(t, p.address, "GET /a/../b?q HTTP/1.1\r\nHost: up\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"+
		"POST /c HTTP/1.1\r\nHost: up\r\nContent-Length: 2\r\n\r\nhi"+
		"POST /d HTTP/1.1\r\nHost: up\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	want(t, got, `GET /b?q up "" ;`, `POST /c up "hi" ;`, `POST /d up "abc" ;`, "Connection: close")
	n := 0
	conns.Range(func(_, _ any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d upstream connections", n)
	}
	if r := p.records.last(t, 2); r.Code != 200 || r.Flags != 0 || r.Cluster != "up" || r.RequestBytes != 2 || len(r.RequestID) != 36 || r.Host.Region != "eu" {
		t.Errorf("%+v", r)
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	body := make([]byte, 3<<20)
	_, _ = rand.Read(body)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	p := newProxy(t, []string{up})
	for _, path := range []string{"/length", "/chunked"} {
		for range 2 {
			var in io.Reader = bytes.NewReader(body)
			if path == "/chunked" {
				in = io.MultiReader(in)
			}
			r, _ := http.NewRequest("POST", "http://"+p.address+path, in)
			r.Host = "up"
			got, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(got.Body)
			got.Body.Close()
			if err != nil || !bytes.Equal(b, body) {
				t.Fatalf("%s: %d bytes, %v", path, len(b), err)
			}
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestHeadAnd304And100(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/304" {
			w.WriteHeader(304)
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", "5")
		_, _ = w.Write(append(b, "abcde"...)[:5])
	})
	p := newProxy(t, []string{up})
	got := talk(t, p.address, "HEAD / HTTP/1.1\r\nHost: up\r\n\r\nGET /304 HTTP/1.1\r\nHost: up\r\n\r\nGET / HTTP/1.0\r\nHost: up\r\n\r\n")
	want(t, got, "Content-Length: 5\r\n\r\nHTTP/1.1 304", "abcde")
	c := dial(t, p.address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	b := bufio.NewReader(c)
	if line, _ := b.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q", line)
	}
	fmt.Fprint(c, "hi")
	rest, _ := io.ReadAll(b)
	want(t, string(rest), "HTTP/1.1 200 OK", "hiabc")
}

func TestUpgrade(t *testing.T) {
	up := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if q.URL.Path == "/no" {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\nhello ", q.Header.Get("Upgrade"))
		_, _ = io.Copy(c, r)
	})
	p := newProxy(t, []string{up}, func(c *config.Config, _ *config.Forward, _ *config.Settings) {
		httpOf(c).StreamIdleTimeout = 300 * time.Millisecond
	})
	for _, ends := range []bool{true, false} { // without an end, the tunnel ends when it was idle
		c := dial(t, p.address)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: up\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping")
		if ends {
			_ = c.(*net.TCPConn).CloseWrite()
		}
		got, err := io.ReadAll(c)
		if want(t, string(got), "101 Switching Protocols", "Upgrade: websocket", "hello ping"); err != nil {
			t.Errorf("ends %v: %v", ends, err)
		}
	}
	if got := talk(t, p.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "HTTP/1.1 502") {
		t.Errorf("101 unasked: %q", got)
	}
}

func TestTruncationIsPropagated(t *testing.T) {
	up := raw(t, func(i int, c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if q.URL.Path == "/chunked" {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
		} else {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde")
		}
	})
	p := newProxy(t, []string{up})
	for i, path := range []string{"/chunked", "/length"} {
		r, _ := http.NewRequest("GET", "http://"+p.address+path, nil)
		r.Host = "up"
		got, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(got.Body); err != io.ErrUnexpectedEOF {
			t.Errorf("%s: %q %v", path, b, err)
		}
		got.Body.Close()
		if rec := p.records.last(t, i+1); rec.Flags != record.ConnectionTermination || rec.Code != 200 {
			t.Errorf("%+v", rec)
		}
	}
}

// A kept connection that died is replaced for what may be sent twice; the client sees nothing of it.
func TestStaleConnection(t *testing.T) {
	up := raw(t, func(i int, c net.Conn, r *bufio.Reader) {
		for n := 0; ; n++ {
			if _, err := http.ReadRequest(r); err != nil || n == 1 {
				return // dies with the second request in its hands
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
		}
	})
	p := newProxy(t, []string{up})
	get := "GET / HTTP/1.1\r\nHost: up\r\n\r\n"
	got := talk(t, p.address, get+get+get+"POST / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n")
	if n := strings.Count(got, "200 OK"); n != 3 || !strings.Contains(got, "503 Service Unavailable") {
		t.Errorf("%d answers: %q", n, got)
	}
	if rec := p.records.last(t, 4); rec.Flags != record.ConnectionTermination || rec.Method != "POST" {
		t.Errorf("%+v", rec)
	}
}

func TestRetryOnAnotherHost(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", b, r.Header.Get("X-Envoy-Attempt-Count"))
	})
	p := newProxy(t, []string{dead.Addr().String(), up}, retry(config.RetryConnectFailure, 2))
	for range 4 {
		got := talk(t, p.address, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
		want(t, got, "200 OK", "abc ")
	}
}

// With retry_priority, what all of a priority fails is tried further away, before anybody is ejected.
func TestRetryGoesFurther(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from afar") })
	further := func(c *config.Config, f *config.Forward, _ *config.Settings) {
		f.Retry.OtherHost, f.Retry.FurtherAfter = false, 2
		all := c.Clusters["up"].Endpoints
		near, far := all.Localities[0], all.Localities[0]
		near.Endpoints, far.Endpoints, far.Priority = near.Endpoints[:1], far.Endpoints[1:], 1
		all.Localities = []config.Locality{near, far}
	}
	p := newProxy(t, []string{dead.Addr().String(), up}, retry(config.RetryConnectFailure, 2), further)
	want(t, talk(t, p.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"), "200 OK", "from afar")
	if r := p.records.last(t, 1); r.Attempts != 3 || r.Host.Priority != 1 {
		t.Errorf("%+v", r)
	}
}

func retry(on config.RetryOn, attempts uint32) option {
	return func(_ *config.Config, f *config.Forward, _ *config.Settings) {
		f.Retry = &config.RetryPolicy{On: on, Attempts: attempts, OtherHost: true, BackoffBase: time.Millisecond, BackoffMax: 10 * time.Millisecond}
	}
}

func TestRetryOnStatusAndLimit(t *testing.T) {
	var n atomic.Int32
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 != 0 || r.URL.Path == "/never" {
			w.WriteHeader(503)
		}
	})
	p := newProxy(t, []string{up}, retry(config.Retry5xx, 2))
	want(t, talk(t, p.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"), "200 OK")
	want(t, talk(t, p.address, "GET /never HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"), "503")
	if r := p.records.last(t, 2); r.Flags != record.RetryLimit || r.Attempts != 3 {
		t.Errorf("%+v", r)
	}
}

func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	p := newProxy(t, []string{up}, func(_ *config.Config, f *config.Forward, _ *config.Settings) { f.Timeout = 50 * time.Millisecond })
	got := talk(t, p.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n")
	want(t, got, "504 Gateway Timeout", "upstream request timeout")
	if r := p.records.last(t, 1); r.Flags != record.Timeout || r.Code != 504 {
		t.Errorf("%+v", r)
	}
	tried := newProxy(t, []string{up}, retry(config.Retry5xx, 1), func(_ *config.Config, f *config.Forward, _ *config.Settings) {
		f.Retry.PerTryTimeout = 30 * time.Millisecond
	})
	want(t, talk(t, tried.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"), "504")
	if r := tried.records.last(t, 1); r.Attempts != 2 || r.Flags != record.Timeout|record.RetryLimit {
		t.Errorf("%+v", r)
	}
	close(release)
}

func TestClientGoneEarly(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(gone)
	})
	p := newProxy(t, []string{up})
	c := dial(t, p.address)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: up\r\n\r\n")
	<-entered
	c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the upstream was not told")
	}
	if r := p.records.last(t, 1); r.Flags != record.DownstreamGone || r.Code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestLimits(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
	})
	p := newProxy(t, []string{up}, func(_ *config.Config, _ *config.Forward, s *config.Settings) { s.Breakers[0].MaxRequests = 1 })
	first := dial(t, p.address)
	fmt.Fprint(first, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n")
	<-entered
	got := talk(t, p.address, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n")
	want(t, got, "503", "reset reason: overflow", "x-envoy-overloaded: true")
	if r := p.records.last(t, 1); r.Flags != record.Overflow {
		t.Errorf("%+v", r)
	}
	close(release)
	rest, _ := io.ReadAll(first)
	want(t, string(rest), "200 OK")
}

func TestLocalReplies(t *testing.T) {
	p := newProxy(t, nil)
	for i, c := range []struct {
		request, want string
		flags         record.Flags
	}{
		{"GET / HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n", "HTTP/1.1 404", record.NoRoute},
		{"GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n", "no healthy upstream", record.NoHealthyUpstream},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400", record.DownstreamProtocol},
		{"POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n", "no healthy upstreamHTTP/1.1 503", record.NoHealthyUpstream},
	} {
		want(t, talk(t, p.address, c.request), c.want)
		if r := p.records.last(t, i+1); r.Flags != c.flags {
			t.Errorf("%q: %+v", c.request, r)
		}
	}
}

// Draining and changing the configuration fail nothing that runs or comes in time.
func TestDrainAndSwapFailNothing(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })
	p := newProxy(t, []string{up})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var failed, done atomic.Int32
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 100 {
				r, _ := http.NewRequest("GET", "http://"+p.address+"/", nil)
				r.Host = "up"
				got, err := client.Do(r)
				if err != nil || got.StatusCode != 200 {
					failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, got.Body)
				got.Body.Close()
				if done.Add(1) == 100 {
					p.forwarder.Drain()
				}
				if done.Load()%10 == 0 {
					next := *p.config
					cluster := *p.config.Clusters["up"]
					endpoints := *cluster.Endpoints
					cluster.Endpoints = &endpoints
					next.Clusters = map[string]*config.Cluster{"up": &cluster}
					p.update(&next)
				}
			}
		})
	}
	running.Wait()
	if failed.Load() != 0 || done.Load() != 400 {
		t.Errorf("%d failed of %d", failed.Load(), done.Load())
	}
}

func (p *proxy) update(c *config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clusters.Update(c)
}
