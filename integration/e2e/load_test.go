package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/demo"
)

// result is one request of the load.
type result struct {
	sent, done time.Time
	hop        *demo.Hop
	err        error
}

// load sends 200 requests a second, open loop, until it is ended.
type load struct {
	cancel context.CancelFunc
	ended  chan struct{}
	mu     sync.Mutex
	all    []result // guarded by mu
}

const loadRate = 200

func startLoad(t *testing.T, proxy, service string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, ended: make(chan struct{})}
	client := demo.NewClient(proxy)
	go l.run(ctx, client, service)
	t.Cleanup(func() { l.stop(); client.CloseIdleConnections() })
	return l
}

func (l *load) run(ctx context.Context, client *http.Client, service string) {
	defer close(l.ended)
	var requests sync.WaitGroup
	defer requests.Wait()
	tick := time.NewTicker(time.Second / loadRate)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		requests.Go(func() {
			r := result{sent: time.Now()}
			r.hop, r.err = demo.Ask(context.Background(), client, service, "/")
			r.done = time.Now()
			l.mu.Lock()
			l.all = append(l.all, r)
			l.mu.Unlock()
		})
	}
}

// stop ends the load, waits for what is open and returns every result by time of sending.
func (l *load) stop() []result {
	l.cancel()
	<-l.ended
	slices.SortFunc(l.all, func(a, b result) int { return a.sent.Compare(b.sent) })
	return l.all
}

func failed(results []result) (out []result) {
	for _, r := range results {
		if r.err != nil {
			out = append(out, r)
		}
	}
	return out
}

// since returns the results sent at or after a time.
func since(results []result, from time.Time) []result {
	i, _ := slices.BinarySearchFunc(results, from, func(r result, at time.Time) int { return r.sent.Compare(at) })
	return results[i:]
}

func noneFailed(t *testing.T, results []result) {
	t.Helper()
	bad := failed(results)
	if len(results) == 0 {
		t.Fatal("no request was sent")
	}
	t.Logf("%d of %d requests failed", len(bad), len(results))
	if len(bad) > 0 {
		t.Errorf("%d of %d requests failed; first %v after the start: %v", len(bad), len(results), bad[0].sent.Sub(results[0].sent), bad[0].err)
	}
}

// shares counts the successful answers by what the function says of them.
func shares(results []result, of func(*demo.Hop) string) map[string]float64 {
	out, n := map[string]float64{}, 0.0
	for _, r := range results {
		if r.err == nil {
			out[of(r.hop)]++
			n++
		}
	}
	for key := range out {
		out[key] /= n
	}
	return out
}

func zone(h *demo.Hop) string   { return h.Zone }
func region(h *demo.Hop) string { return h.Region }

// ask sends one request and says what came.
func ask(t *testing.T, proxy, service, path string, change func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	client := demo.NewClient(proxy)
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+service+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(request)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer response.Body.Close()
	var body strings.Builder
	fmt.Fprint(&body, response.Status)
	data := make([]byte, 4096)
	n, _ := response.Body.Read(data)
	body.Write(data[:n])
	return response.StatusCode, body.String(), response.Header
}
