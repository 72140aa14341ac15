package http2

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// overHTTP1 puts HTTP/1.1 before the bench's server, whose upstream speaks HTTP/2, and makes its client speak it.
func (b *bench) overHTTP1(t *testing.T) *bench {
	t.Helper()
	clusters := b.server.config.Clusters
	l := clusters.View().Config.Listeners["l"]
	f := forward.New(forward.Config{Clusters: clusters, Observer: &b.records, HTTP2: b.server})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				f.ServeHTTP1(ctx, conn, nil, forward.Connection{Reporter: record.Source, Listener: l, HTTP: l.Chains[0].HTTP})
			})
		}
	})
	transport := &http.Transport{DisableCompression: true}
	b.client, b.url = &http.Client{Transport: transport, Timeout: 20 * time.Second}, "http://"+listener.Addr().String()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		listener.Close()
		f.CloseIdle()
		ended, end := context.WithTimeout(ctx, time.Second)
		defer end()
		f.Wait(ended)
		running.Wait()
	})
	return b
}

// record waits for the first one and returns it.
func (b *bench) record(t *testing.T) record.Record {
	t.Helper()
	for range 1000 {
		b.records.mu.Lock()
		if len(b.records.all) > 0 {
			defer b.records.mu.Unlock()
			return b.records.all[0]
		}
		b.records.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("no record")
	return record.Record{}
}

func (b *bench) do(t *testing.T, method, path string, body io.Reader) (*http.Response, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "x-hop")
	request.Header.Set("X-Hop", "1")
	request.Header.Set("Keep-Alive", "timeout=5")
	request.Host = "catalog.shop"
	response, err := b.client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	return response, string(got), err
}

func TestHTTP1IsCarriedOverHTTP2(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 200<<10/16)
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != "HTTP/2.0" || r.Host != "catalog.shop" || r.RequestURI != "/a/c?q=%20" || r.Header.Get("Keep-Alive")+r.Header.Get("Transfer-Encoding") != "" {
			t.Errorf("upstream sees %s %s %s %v", r.Proto, r.Host, r.RequestURI, r.Header)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		switch r.Method {
		case "HEAD":
			w.Header().Set("Content-Length", "7")
		case "DELETE":
			w.WriteHeader(http.StatusNoContent)
		case "OPTIONS":
			w.WriteHeader(http.StatusNotModified)
		case "PUT":
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body)
		case "POST":
			w.Header().Set("Trailer", "X-Sum")
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("X-Sum", fmt.Sprint(n))
		}
	}), nil).overHTTP1(t)
	for _, c := range []struct {
		method   string
		body     io.Reader
		code     int
		want     string
		sent     string // content-length upstream
		length   int64  // downstream
		trailers string
	}{
		{"GET", nil, 200, "", "0", 0, ""},
		{"HEAD", nil, 200, "", "0", 7, ""},
		{"DELETE", nil, 204, "", "0", 0, ""},
		{"OPTIONS", nil, 304, "", "0", 0, ""},
		{"PUT", strings.NewReader("short"), 200, "short", "5", 5, ""},
		{"PUT", strings.NewReader(long), 200, long, fmt.Sprint(len(long)), int64(len(long)), ""},
		{"PUT", io.MultiReader(strings.NewReader("ab"), strings.NewReader("cd")), 200, "abcd", "-1", 4, ""},
		{"POST", strings.NewReader(long), 200, long, fmt.Sprint(len(long)), -1, fmt.Sprint(len(long))},
		{"POST", io.MultiReader(strings.NewReader(long), strings.NewReader(long)), 200, long + long, "-1", -1, fmt.Sprint(2 * len(long))},
	} {
		r, body, err := b.do(t, c.method, "/a//b/../c?q=%20", c.body)
		if err != nil {
			t.Errorf("%s: %v", c.method, err)
			continue
		}
		if r.StatusCode != c.code || body != c.want || r.Header.Get("X-Length") != c.sent || r.ContentLength != c.length || r.Trailer.Get("X-Sum") != c.trailers {
			t.Errorf("%s: %s, %d bytes, length %d, trailers %v, upstream length %s", c.method, r.Status, len(body), r.ContentLength, r.Trailer, r.Header.Get("X-Length"))
		}
	}
	first := b.record(t)
	b.records.mu.Lock()
	defer b.records.mu.Unlock()
	for _, r := range b.records.all {
		if r.Flags != 0 || r.Details != "via_upstream" || r.Protocol != first.Protocol {
			t.Errorf("%+v", r)
		}
	}
}

func TestCarriedBodiesStreamBothWays(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		buffer := make([]byte, 1)
		for {
			if n, err := r.Body.Read(buffer); n == 0 && err != nil {
				_, _ = io.WriteString(w, "sum "+r.Trailer.Get("X-Client-Sum"))
				return
			}
			_, _ = w.Write(buffer)
			_ = http.NewResponseController(w).Flush()
		}
	}), nil).overHTTP1(t)
	body, feed := io.Pipe()
	hinted := make(chan string, 1)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hinted <- fmt.Sprint(code, h.Get("Link"))
		return nil
	}})
	request, _ := http.NewRequestWithContext(ctx, "POST", b.url+"/", body)
	request.Trailer = http.Header{"X-Client-Sum": {"2"}}
	go func() {
		if got := <-hinted; got != "103</style.css>" {
			t.Errorf("hint %q", got)
		}
		_, _ = feed.Write([]byte("a"))
	}()
	response, err := b.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got := make([]byte, 1)
	for _, next := range []string{"b", ""} {
		if _, err := io.ReadFull(response.Body, got); err != nil {
			t.Fatal(err)
		}
		_, _ = feed.Write([]byte(next))
	}
	feed.Close()
	if rest, err := io.ReadAll(response.Body); string(rest) != "sum 2" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// What the upstream does while the request's body is still on its way, or after the response has begun.
func TestCarriedExchangesThatEndEarly(t *testing.T) {
	for name, c := range map[string]struct {
		app    http.HandlerFunc
		want   string
		flags  record.Flags
		change func(*config.Forward, *config.Settings)
	}{
		"answer": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413); _, _ = io.WriteString(w, "no") }, "413 no <nil>", 0, nil},
		"reset": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"503 upstream connect error or disconnect/reset before headers. reset reason: remote reset <nil>", record.RemoteReset, nil},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "200 half unexpected EOF", record.RemoteReset, nil},
		"timeout": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "504 upstream request timeout <nil>", record.Timeout,
			func(f *config.Forward, _ *config.Settings) { f.Timeout = 20 * time.Millisecond }},
		"late": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "200 half unexpected EOF", record.Timeout, func(f *config.Forward, _ *config.Settings) { f.Timeout = 50 * time.Millisecond }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.app, c.change).overHTTP1(t)
			body, feed := io.Pipe()
			go func() { _, _ = feed.Write([]byte("begun")) }()
			r, got, err := b.do(t, "POST", "/", body)
			feed.Close()
			if r == nil {
				t.Fatal(err)
			}
			if got = fmt.Sprintf("%d %s %v", r.StatusCode, got, err); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if rec := b.record(t); rec.Flags != c.flags {
				t.Errorf("flags %v %s", rec.Flags, rec.Details)
			}
		})
	}
}

func TestWhoeverGoesResetsWhatIsCarried(t *testing.T) {
	for _, sending := range []bool{false, true} {
		began, reset := make(chan struct{}), make(chan struct{})
		b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.UserAgent() != "" {
				t.Errorf("the proxy speaks for the client: %q", r.UserAgent())
			}
			close(began)
			<-r.Context().Done()
			close(reset)
		}), nil).overHTTP1(t)
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		head := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		if sending {
			head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegun"
		}
		_, _ = io.WriteString(conn, head)
		<-began
		conn.Close()
		select {
		case <-reset:
		case <-time.After(10 * time.Second):
			t.Fatal("the stream goes on")
		}
		if rec := b.record(t); rec.Flags != record.DownstreamGone {
			t.Errorf("flags %v %s", rec.Flags, rec.Details)
		}
	}
}

func TestCarriedRequestsAreRetried(t *testing.T) {
	var calls atomic.Int64
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch calls.Add(1) {
		case 1:
			w.WriteHeader(503)
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			<-r.Context().Done()
		}
		_, _ = w.Write(body)
	}), func(f *config.Forward, _ *config.Settings) {
		f.Retry = &config.RetryPolicy{On: config.Retry5xx, Attempts: 3, PerTryTimeout: 100 * time.Millisecond, BackoffBase: time.Millisecond, BackoffMax: time.Millisecond}
	}).overHTTP1(t)
	r, body, err := b.do(t, "POST", "/", strings.NewReader("again and again"))
	if err != nil || r.StatusCode != 200 || body != "again and again" || calls.Load() != 4 {
		t.Errorf("%v %q %v after %d calls", r, body, err, calls.Load())
	}
	if rec := b.record(t); rec.Attempts != 4 {
		t.Errorf("%d attempts", rec.Attempts)
	}
}

func TestUpgradesAreNotCarried(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called") }), nil).overHTTP1(t)
	request, _ := http.NewRequestWithContext(t.Context(), "GET", b.url+"/", nil)
	request.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"websocket"}}
	r, err := b.client.Do(request)
	if err != nil || r.StatusCode != http.StatusBadGateway {
		t.Fatalf("%v %v", r, err)
	}
	r.Body.Close()
}

// frames answers the streams of HTTP/2 connections frame by frame; answer gets the number of the stream, over all of them.
func frames(t *testing.T, window uint32, answer func(f *http2.Framer, n int, stream uint32)) netip.AddrPort {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var streams atomic.Int64
	serve := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		_, _ = r.Discard(len(http2.ClientPreface))
		f := http2.NewFramer(conn, r)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				answer(f, int(streams.Add(1)), frame.StreamID)
			}
		}
	}
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })
	return netip.MustParseAddrPort(listener.Addr().String())
}

func writeOK(f *http2.Framer, stream uint32, end bool) {
	var head bytes.Buffer
	_ = hpack.NewEncoder(&head).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: end})
}

// at moves the bench's cluster to another address.
func (b *bench) at(address netip.AddrPort) *bench {
	clusters := b.server.config.Clusters
	next := *clusters.View().Config
	c := *next.Clusters["c"]
	c.Endpoints = &config.Endpoints{Overprovisioning: 140, Localities: []config.Locality{{Endpoints: []config.Endpoint{{Address: address, Weight: 1}}}}}
	next.Clusters = map[string]*config.Cluster{"c": &c}
	clusters.Update(&next)
	return b
}

// A stream that was refused is begun once more, whatever its method, without a policy.
func TestARefusedStreamIsCarriedAgain(t *testing.T) {
	for refusals, want := range map[int]int{1: 200, 2: 503} {
		address := frames(t, 64<<10, func(f *http2.Framer, n int, stream uint32) {
			if n <= refusals {
				_ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				return
			}
			writeOK(f, stream, true)
		})
		b := newBench(t, nil, nil).at(address).overHTTP1(t)
		r, _, err := b.do(t, "POST", "/", strings.NewReader("body"))
		if err != nil || r.StatusCode != want {
			t.Errorf("%d refusals: %v %v", refusals, r, err)
		}
	}
}

// An upstream that takes no byte of a body can answer all the same, and what is not read is given up.
func TestAnAnswerDoesNotWaitForTheBody(t *testing.T) {
	address := frames(t, 0, func(f *http2.Framer, _ int, stream uint32) { writeOK(f, stream, true) })
	b := newBench(t, nil, func(f *config.Forward, _ *config.Settings) {
		f.Retry = &config.RetryPolicy{On: config.Retry5xx, Attempts: 1}
	}).at(address).overHTTP1(t)
	for _, size := range []int{60 << 10, 200 << 10} { // kept for a retry, and streamed
		r, _, err := b.do(t, "POST", "/", strings.NewReader(strings.Repeat("x", size)))
		if err != nil || r.StatusCode != 200 {
			t.Errorf("%d bytes: %v %v", size, r, err)
		}
	}
}
