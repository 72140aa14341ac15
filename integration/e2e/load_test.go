package e2e

import (
	"context"
	"fmt"
	"math"
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

// load sends requests at a steady rate, open loop, until it is ended.
type load struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan struct{}
	mu     sync.Mutex
	all    []result // guarded by mu
}

const loadRate = 200

func startLoad(t *testing.T, proxy, service string) *load {
	t.Helper()
	return startLoadAt(t, proxy, service, loadRate)
}

// startLoadAt is startLoad at another rate: shares within 2 points take thousands of requests.
func startLoadAt(t *testing.T, proxy, service string, rate int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, cancel: cancel, ended: make(chan struct{})}
	client := demo.NewClient(proxy)
	go l.run(ctx, client, service, rate)
	t.Cleanup(func() { l.stop(); client.CloseIdleConnections() })
	return l
}

// run sends the nth request n intervals after the start. One that is late, because this process did not get the
// processor, is sent at once and not left out.
func (l *load) run(ctx context.Context, client *http.Client, service string, rate int) {
	defer close(l.ended)
	var requests sync.WaitGroup
	defer requests.Wait()
	began := time.Now()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			if due := int(time.Since(began).Seconds() * float64(rate)); n < due*9/10 {
				l.t.Errorf("the load fell behind: it sent %d requests of %d", n, due)
			}
			return
		case <-time.After(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(rate)))):
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

// before returns the results sent before a time.
func before(results []result, to time.Time) []result {
	return results[:len(results)-len(since(results, to))]
}

// last returns the results sent in the last d of the load.
func last(results []result, d time.Duration) []result {
	if len(results) == 0 {
		return nil
	}
	return since(results, results[len(results)-1].sent.Add(-d))
}

func noneFailed(t *testing.T, results []result) {
	t.Helper()
	bad := failed(results)
	if len(results) == 0 {
		t.Fatal("no request was sent")
	}
	t.Logf("%d of %d requests failed", len(bad), len(results))
	if len(bad) > 0 {
		first, last := bad[0], bad[len(bad)-1]
		t.Errorf("%d of %d requests failed; first %v after the start, answered %v later: %v; last %v after the start, answered %v later: %v", len(bad), len(results),
			first.sent.Sub(results[0].sent), first.done.Sub(first.sent), first.err, last.sent.Sub(results[0].sent), last.done.Sub(last.sent), last.err)
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

// near wants each share within 2 points of what it should be, and no others.
func near(t *testing.T, results []result, of func(*demo.Hop) string, want map[string]float64) {
	t.Helper()
	nearBy(t, results, of, want, 0.02)
}

func nearBy(t *testing.T, results []result, of func(*demo.Hop) string, want map[string]float64, tolerance float64) {
	t.Helper()
	got := shares(results, of)
	t.Logf("shares of %d requests: %v", len(results), got)
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s got %.3f of the requests, want none", key, got[key])
		}
	}
	for key, share := range want {
		if math.Abs(got[key]-share) > tolerance {
			t.Errorf("%s got %.3f of the requests, want %.2f within %.2f", key, got[key], share, tolerance)
		}
	}
}

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
