package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/proxy/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func count(c prometheus.Collector) int {
	found := make(chan prometheus.Metric, 1000)
	c.Collect(found)
	return len(found)
}

func request() *record.Record {
	return &record.Record{
		Reporter: record.Source, Protocol: record.HTTP1, Start: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC),
		Duration: 12 * time.Millisecond, Request: time.Millisecond, Upstream: 11 * time.Millisecond,
		Method: "GET", Path: "/a?b=c", Authority: "catalog.shop", RequestID: "id", UserAgent: "curl", Code: 200, GRPC: -1,
		Details: "via_upstream", RequestBytes: 3, ResponseBytes: 5, Route: "r", Cluster: "outbound|80||catalog.shop.svc.cluster.local",
		Host:       record.Upstream{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Region: "eu", Zone: "a", Cluster: "eu-west"},
		Peer:       "spiffe://eu-west.mesh/ns/shop/sa/catalog",
		MutualTLS:  true,
		Downstream: netip.MustParseAddrPort("127.0.0.1:5000"), LocalAddress: netip.MustParseAddrPort("127.0.0.1:15001"),
	}
}

func TestTextIsIstios(t *testing.T) {
	want := `[2026-01-02T03:04:05.006Z] "GET /a?b=c HTTP/1.1" 200 - via_upstream - "-" 3 5 12 10 "-" "curl" "id" "catalog.shop" "10.0.0.1:8080" ` +
		"outbound|80||catalog.shop.svc.cluster.local - 127.0.0.1:15001 127.0.0.1:5000 - r\n"
	if got := string(appendText(nil, request())); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestLogCannotBeForged(t *testing.T) {
	r := request()
	r.UserAgent, r.Path = "x\"\n[2026] \x1b[31m\u2028", "/\r\n"
	text, object := string(appendText(nil, r)), appendJSON(nil, r)
	if strings.Count(text, "\n") != 1 || strings.ContainsAny(text, "\x1b\r") || strings.Contains(text, `x"`) {
		t.Errorf("forged %q", text)
	}
	var fields map[string]any
	if err := json.Unmarshal(object, &fields); err != nil || fields["user_agent"] != r.UserAgent || bytes.Count(object, []byte("\n")) != 1 {
		t.Errorf("%v %s", err, object)
	}
}

// Whoever reads the log by its columns is not misled by what a client sends.
func TestTextHasTheSameColumnsForAll(t *testing.T) {
	plain, odd := request(), request()
	plain.ServerName = "x"
	odd.Details = "upstream_reset_before_response_started{remote connection failure}"
	odd.Path, odd.ServerName, odd.Route = "/a b", "x 10.0.0.1:1 10.0.0.2:2", "my route"
	want := len(strings.Fields(string(appendText(nil, plain))))
	if line := string(appendText(nil, odd)); len(strings.Fields(line)) != want || !strings.Contains(line, "started{remote_connection_failure}") {
		t.Errorf("%d columns, want %d: %s", len(strings.Fields(line)), want, line)
	}
}

func TestSlowLogDropsAndCounts(t *testing.T) {
	var out bytes.Buffer
	telemetry, err := New(Config{AccessLog: &out, AccessLogBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		telemetry.Observe(request())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := telemetry.Run(ctx); err != nil {
		t.Fatal(err)
	}
	lines, dropped := strings.Count(out.String(), "\n"), value(t, telemetry.metrics.dropped)
	if out.Len() > 1000 || lines == 0 || lines+int(dropped) != 10 {
		t.Errorf("%d bytes, %d lines, %v dropped", out.Len(), lines, dropped)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	telemetry, err := New(Config{Registry: registry, MaxSeries: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		r := request()
		r.Code = 200 + i
		telemetry.Observe(r)
	}
	if n := count(telemetry.metrics.requests); n > 4 {
		t.Errorf("%d series", n)
	}
	if n := value(t, telemetry.metrics.overflow); n != 17 {
		t.Errorf("overflow %v", n)
	}
}

func idle(func(Running)) {}

func TestLoadAddsUpAndIsNotLost(t *testing.T) {
	l := newLoad()
	good, bad := request(), request()
	bad.Code = 503
	inbound := request()
	inbound.Reporter = record.Destination
	for _, r := range []*record.Record{good, good, bad, inbound} {
		l.observe(r)
	}
	first := l.take(time.Second, idle)
	l.restore(first)
	l.observe(good)
	again := l.take(time.Second, idle)
	if len(again) != 1 || len(l.take(time.Second, idle)) != 0 {
		t.Fatalf("%v", again)
	}
	s := again[0].GetUpstreamLocalityStats()[0]
	if s.GetTotalSuccessfulRequests() != 3 || s.GetTotalErrorRequests() != 1 || s.GetTotalIssuedRequests() != 4 || s.GetLocality().GetZone() != "a" {
		t.Errorf("%v", s)
	}
	if m := s.GetLoadMetricStats(); len(m) != 1 || m[0].GetNumRequestsFinishedWithMetric() != 4 || latency.Index(12*time.Millisecond) == 0 {
		t.Errorf("%v", m)
	}
}

func TestDeniedIsCounted(t *testing.T) {
	telemetry, _ := New(Config{})
	r := request()
	r.Details = "rbac_access_denied_matched_policy[p]"
	telemetry.Observe(r)
	if n := value(t, telemetry.metrics.denied); n != 1 {
		t.Errorf("%v", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	telemetry, _ := New(Config{})
	r := request()
	b.ReportAllocs()
	for b.Loop() {
		telemetry.Observe(r)
	}
}
