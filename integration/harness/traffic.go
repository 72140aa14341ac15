package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Headers of an answer of App.
const (
	HeaderApp    = "X-App"    // the app's name
	HeaderCaller = "X-Caller" // the caller's SPIFFE ID, as the app's sidecar verified it
)

// App is an HTTP server in the test's process that answers its name. It returns host:port.
func (m *Mesh) App(t testing.TB, name string) string {
	t.Helper()
	return m.Handler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderApp, name)
		w.Header().Set(HeaderCaller, caller(r.Header.Get("X-Forwarded-Client-Cert")))
		io.WriteString(w, name)
	}))
}

// Handler serves any handler in the test's process. It returns host:port.
func (m *Mesh) Handler(t testing.TB, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

// caller reads the URI of the last x-forwarded-client-cert element, which the app's own sidecar wrote.
func caller(header string) string {
	elements := strings.Split(header, ",")
	for part := range strings.SplitSeq(elements[len(elements)-1], ";") {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(part), "URI="); ok {
			return strings.Trim(uri, `"`)
		}
	}
	return ""
}

// File writes a file of the cluster and returns its path.
func (c *Cluster) File(name, content string) string {
	c.mesh.t.Helper()
	path := c.mesh.path("clusters", c.Name, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		c.mesh.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		c.mesh.t.Fatal(err)
	}
	return path
}

// Get asks an authority for a path through the sidecar whose outbound listener is given. Every call is a connection
// of its own.
func Get(outbound, authority, path string) (status int, body string, header http.Header, err error) {
	client := NewClient(outbound)
	defer client.CloseIdleConnections()
	return ask(context.Background(), client, authority, path)
}

// NewClient sends every request to a sidecar, whatever its authority, and keeps connections.
func NewClient(outbound string) *http.Client {
	var dialer net.Dialer
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", outbound)
		},
		MaxIdleConnsPerHost: 64,
	}}
}

func ask(ctx context.Context, client *http.Client, authority, path string) (int, string, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+authority+path, nil)
	if err != nil {
		return 0, "", nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), response.Header, err
}

// Requests is a load function that wants 200 from authority, through a sidecar.
func Requests(t testing.TB, outbound, authority string) func(context.Context) error {
	client := NewClient(outbound)
	t.Cleanup(client.CloseIdleConnections)
	return func(ctx context.Context) error {
		status, body, _, err := ask(ctx, client, authority, "/")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	}
}

// Load is an open loop: requests leave at a steady rate, however long answers take.
type Load struct {
	cancel context.CancelFunc
	ended  chan struct{}
	due    int // by the rate, when it ended
	mu     sync.Mutex
	result LoadResult // guarded by mu
}

// LoadResult counts requests.
type LoadResult struct {
	Sent, Failed int
	First        error         // of those that failed
	FirstAfter   time.Duration // since the start
}

// StartLoad calls do rate times a second, until Stop.
func StartLoad(t testing.TB, rate int, do func(context.Context) error) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{cancel: cancel, ended: make(chan struct{})}
	go l.run(ctx, rate, do)
	t.Cleanup(func() { l.Stop() })
	return l
}

func (l *Load) run(ctx context.Context, rate int, do func(context.Context) error) {
	defer close(l.ended)
	var open sync.WaitGroup
	defer open.Wait()
	began := time.Now()
	for n := 0; ; n++ {
		// A call that is late, because this process did not get the processor, is made at once and not left out.
		select {
		case <-ctx.Done():
			l.due = int(time.Since(began).Seconds() * float64(rate))
			return
		case <-time.After(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(rate)))):
		}
		open.Go(func() {
			after := time.Since(began)
			err := do(context.Background())
			l.mu.Lock()
			defer l.mu.Unlock()
			l.result.Sent++
			if err != nil {
				if l.result.Failed++; l.result.First == nil {
					l.result.First, l.result.FirstAfter = err, after
				}
			}
		})
	}
}

// Stop ends the load and waits for what is open.
func (l *Load) Stop() LoadResult {
	l.cancel()
	<-l.ended
	return l.result
}

// NoneFailed stops the load and fails the test if a request failed, or fewer were sent than the rate says.
func (l *Load) NoneFailed(t testing.TB) {
	t.Helper()
	r := l.Stop()
	t.Logf("%d of %d requests failed", r.Failed, r.Sent)
	if r.Failed > 0 {
		t.Errorf("%d of %d requests failed; the first %s after the start: %v", r.Failed, r.Sent, r.FirstAfter, r.First)
	}
	if r.Sent == 0 || r.Sent < l.due*9/10 {
		t.Errorf("%d requests were sent, %d were due", r.Sent, l.due)
	}
}

// Eventually repeats try until it returns nil; the test fails, with its last error, if that takes longer than timeout.
// It returns how long it took.
func Eventually(t testing.TB, timeout time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := try()
		took := time.Since(began)
		if took > timeout {
			t.Fatalf("%s: not after %s but %s: %v", what, timeout, took, err)
		}
		if err == nil {
			return took
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Answered is an Eventually function: the named app answers requests for authority.
func Answered(outbound, authority, app string) func() error {
	return func() error {
		status, body, _, err := Get(outbound, authority, "/")
		switch {
		case err != nil:
			return err
		case status != http.StatusOK:
			return fmt.Errorf("%d %s", status, body)
		case app != "" && body != app:
			return errors.New(body + " answered")
		}
		return nil
	}
}
