package http2

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// speaker is a client that says what net/http's would not.
type speaker struct {
	*http2.Framer
	head   bytes.Buffer
	encode *hpack.Encoder
	stream uint32
}

func (b *bench) speak(t *testing.T) *speaker {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	s := &speaker{Framer: http2.NewFramer(conn, conn)}
	s.encode = hpack.NewEncoder(&s.head)
	s.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = s.WriteSettings()
	return s
}

// ask sends a request and returns its status, or how it was reset. fields are names and values.
func (s *speaker) ask(t *testing.T, fields ...string) string {
	t.Helper()
	s.stream = max(s.stream+2, 1) | 1
	s.head.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = s.encode.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	const most = 16 << 10 // bytes of a frame
	block := s.head.Bytes()
	first := block[:min(len(block), most)]
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: s.stream, BlockFragment: first, EndStream: true, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		part := block[:min(len(block), most)]
		block = block[len(part):]
		_ = s.WriteContinuation(s.stream, len(block) == 0, part)
	}
	return s.answer(t)
}

func (s *speaker) answer(t *testing.T) string {
	t.Helper()
	for {
		frame, err := s.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return frame.ErrCode.String()
		}
	}
}

// What HTTP/2 can carry and a head of HTTP/1.1 cannot would be forwarded as something else than was authorised, or be
// held against the host that it was meant for.
func TestWhatHTTP1CannotSayIsRefused(t *testing.T) {
	many, large := []string{}, []string{}
	for i := range 101 {
		many = append(many, fmt.Sprintf("x-%d", i), "1")
	}
	for i := range 61 {
		large = append(large, fmt.Sprintf("x-%d", i), strings.Repeat("a", 1<<10))
	}
	for name, c := range map[string]struct {
		method, path, host string
		more               []string
		want               string
	}{
		"plain":           {"GET", "/a?b", "catalog.shop:80", nil, "200"},
		"same host":       {"GET", "/", "catalog.shop", []string{"host", "Catalog.shop"}, "200"},
		"most fields":     {"GET", "/", "a", many[:200], "200"},
		"method":          {"GET /admin HTTP/1.1", "/", "a", nil, "400"},
		"space in query":  {"GET", "/a?b HTTP/1.1", "a", nil, "400"},
		"8 bit in query":  {"GET", "/a?\xff", "a", nil, "400"},
		"host with path":  {"GET", "/", "a/b", nil, "400"},
		"host with space": {"GET", "/", "a b", nil, "400"},
		"host list":       {"GET", "/", "a,b", nil, "400"},
		"host port":       {"GET", "/", "a:b", nil, "400"},
		"other host":      {"GET", "/", "a", []string{"host", "b"}, "400"},
		"two hosts":       {"GET", "/", "a", []string{"host", "a", "host", "a"}, "400"},
		"long target":     {"GET", "/" + strings.Repeat("a", 17<<10), "a", nil, "400"},
		"many fields":     {"GET", "/", "a", many, "431"},
		"large fields":    {"GET", "/", "a", large, "431"},
		"large field":     {"GET", "/", "a", []string{"x", strings.Repeat("a", 61<<10)}, "COMPRESSION_ERROR"},
		"te":              {"GET", "/", "a", []string{"transfer-encoding", "chunked"}, "400"},
		"connection":      {"GET", "/", "a", []string{"connection", "close"}, "400"},
		"value with CR":   {"GET", "/", "a", []string{"x", "a\rb"}, "PROTOCOL_ERROR"},
		"name in capital": {"GET", "/", "a", []string{"X", "a"}, "PROTOCOL_ERROR"},
	} {
		for _, protocol := range []config.Protocol{config.UpstreamHTTP1, config.UpstreamHTTP2} {
			t.Run(fmt.Sprint(name, protocol), func(t *testing.T) {
				b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if c.want != "200" {
						t.Errorf("upstream sees %q %.40q %q", r.Method, r.RequestURI, r.Host)
					}
				}), func(_ *config.Forward, s *config.Settings) { s.Protocol = protocol })
				fields := append([]string{":method", c.method, ":scheme", "http", ":authority", c.host, ":path", c.path}, c.more...)
				if got := b.speak(t).ask(t, fields...); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				b.records.mu.Lock()
				defer b.records.mu.Unlock()
				for _, r := range b.records.all {
					if c.want != "200" && (r.Attempts > 0 || r.Flags != record.DownstreamProtocol) {
						t.Errorf("%d attempts, %s %s", r.Attempts, r.Flags, r.Details)
					}
				}
			})
		}
	}
}

// No frame makes a connection keep more memory than the least that RFC 9113 asks for.
func TestALargeFrameIsRefused(t *testing.T) {
	s := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil).speak(t)
	s.head.Reset()
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"},
		{Name: ":path", Value: "/"}, {Name: "x", Value: strings.Repeat("~", 20<<10)}} {
		_ = s.encode.WriteField(field)
	}
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.head.Bytes(), EndStream: true, EndHeaders: true})
	if got := s.answer(t); got != "FRAME_SIZE_ERROR" {
		t.Error(got)
	}
}

// An upstream that gives up while the client does not send is answered at once: not when the client sends again.
func TestAResetIsAnsweredWhileTheClientIsSilent(t *testing.T) {
	for _, protocol := range []config.Protocol{config.UpstreamHTTP1, config.UpstreamHTTP2} {
		b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = r.Body.Read(make([]byte, 1))
			if h, ok := w.(http.Hijacker); ok { // net/http waits for the body otherwise
				conn, _, _ := h.Hijack()
				conn.Close()
				return
			}
			panic(http.ErrAbortHandler)
		}), func(_ *config.Forward, s *config.Settings) { s.Protocol = protocol })
		body, feed := io.Pipe()
		go func() { _, _ = feed.Write([]byte("begun")) }()
		began := time.Now()
		response, err := b.client.Post(b.url+"/", "text/plain", body)
		if err != nil || response.StatusCode != http.StatusServiceUnavailable || time.Since(began) > 5*time.Second {
			t.Errorf("protocol %d: %v %v after %v", protocol, response, err, time.Since(began))
		}
		if err == nil {
			response.Body.Close()
		}
		feed.Close()
	}
}

func (b *bench) idleAfter(d time.Duration) {
	clusters := b.server.config.Clusters
	l := *clusters.View().Config.Listeners["l"]
	limited := *l.Chains[0].HTTP
	limited.StreamIdleTimeout = d
	l.Chains = []*config.FilterChain{{HTTP: &limited}}
	next := *clusters.View().Config
	next.Listeners = map[string]*config.Listener{"l": &l}
	clusters.Update(&next)
}

// Without a byte either way a stream ends, before the response has begun too; a body that moves is not idle.
func TestAnIdleStreamEnds(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/never" {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}), nil)
	b.idleAfter(400 * time.Millisecond)
	silent, more := io.Pipe()
	defer more.Close()
	moving, feed := io.Pipe()
	go func() {
		for range 10 {
			time.Sleep(80 * time.Millisecond)
			_, _ = feed.Write([]byte("x"))
		}
		feed.Close()
	}()
	for i, c := range []struct {
		path string
		body io.Reader
		want string
		flag record.Flags
	}{
		{"/never", http.NoBody, "504 stream timeout <nil>", record.StreamIdle},
		{"/never", silent, "408 stream timeout <nil>", record.StreamIdle},
		{"/", moving, "200 10 <nil>", 0},
	} {
		response, err := b.client.Post(b.url+c.path, "text/plain", c.body)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if got := fmt.Sprintf("%d %s %v", response.StatusCode, body, err); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		for b.count() <= i {
			time.Sleep(time.Millisecond)
		}
		b.records.mu.Lock()
		if r := b.records.all[i]; r.Flags != c.flag {
			t.Errorf("%s %s", r.Flags, r.Details)
		}
		b.records.mu.Unlock()
	}
}

func (b *bench) count() int {
	b.records.mu.Lock()
	defer b.records.mu.Unlock()
	return len(b.records.all)
}

// Fields that end at a hop, and what could be taken for the proxy's own word, do not pass.
func TestFieldsThatDoNotPass(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header["X-Forwarded-Client-Cert"] != nil || r.Trailer["X-Forwarded-Client-Cert"] != nil || r.Trailer.Get("X-Sum") != "1" {
			t.Errorf("upstream sees %v, trailers %v", r.Header, r.Trailer)
		}
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Connection", "x-hop")
	}), func(_ *config.Forward, s *config.Settings) { s.Protocol = config.UpstreamHTTP1 })
	for _, mode := range []config.ForwardClientCert{config.SanitizeXFCC, config.ForwardOnlyXFCC, config.AppendForwardXFCC, config.SanitizeSetXFCC} {
		clusters := b.server.config.Clusters
		l := *clusters.View().Config.Listeners["l"]
		changed := *l.Chains[0].HTTP
		changed.ForwardClientCert = mode
		l.Chains = []*config.FilterChain{{HTTP: &changed}}
		next := *clusters.View().Config
		next.Listeners = map[string]*config.Listener{"l": &l}
		clusters.Update(&next)
		request, _ := http.NewRequest("POST", b.url+"/", io.MultiReader(strings.NewReader("a")))
		request.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://a/ns/b/sa/c")
		request.Trailer = http.Header{"X-Sum": {"1"}, "X-Forwarded-Client-Cert": {"URI=spiffe://a/ns/b/sa/c"}}
		response, err := b.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if response.Header.Get("X-Hop") != "" {
			t.Error("a field that Connection names passes")
		}
		response.Body.Close()
	}
}

func TestAnUpstreamThatSwitchesProtocolsUnaskedIsWrong(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	b := newBench(t, nil, func(_ *config.Forward, s *config.Settings) { s.Protocol = config.UpstreamHTTP1 }).
		at(listener.Addr().(*net.TCPAddr).AddrPort())
	response, err := b.client.Get(b.url + "/")
	if err != nil || response.StatusCode != http.StatusBadGateway {
		t.Fatalf("%v %v", response, err)
	}
	response.Body.Close()
	listener.Close()
	<-done
}

// A kept connection over HTTP/1.1 that died is replaced for what may be sent twice, as for clients of HTTP/1.1.
func TestAStaleConnectionIsReplaced(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for n := 0; ; n++ {
					if _, err := http.ReadRequest(r); err != nil || n == 1 {
						return // dies with the second request in its hands
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
				}
			})
		}
	})
	b := newBench(t, nil, func(_ *config.Forward, s *config.Settings) { s.Protocol = config.UpstreamHTTP1 }).
		at(listener.Addr().(*net.TCPAddr).AddrPort())
	got := ""
	for _, method := range []string{"GET", "GET", "GET", "POST"} {
		request, _ := http.NewRequest(method, b.url+"/", nil)
		response, err := b.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		got += fmt.Sprint(response.StatusCode, " ")
	}
	if got != "200 200 200 503 " {
		t.Error(got)
	}
	b.server.upstreams.Close()
	listener.Close()
	running.Wait()
}
