package forward

import (
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/route"
)

func TestGRPCTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "10S": 10 * time.Second, "100m": 100 * time.Millisecond, "5u": 5 * time.Microsecond, "9n": 9,
		"": -1, "S": -1, "1": -1, "-1S": -1, "1s": -1, "123456789S": -1, "1.5S": -1,
	} {
		if got := grpcTimeout(value, -1); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestFailLateSaysWhichTimeIsOver(t *testing.T) {
	start := time.Unix(1000, 0)
	r := &route.Route{Route: &config.Route{Forward: &config.Forward{Timeout: 3 * time.Second, MaxStreamDuration: 2 * time.Second}},
		Retry: &config.RetryPolicy{PerTryTimeout: time.Second}}
	c := &Call{Route: r, start: start}
	c.startTimeouts(&route.Request{})
	if got := c.TryUntil(start); got != start.Add(time.Second) {
		t.Errorf("a try ends at %v", got)
	}
	for after, want := range map[time.Duration]string{time.Second: "upstream_per_try_timeout", 2 * time.Second: "max_duration_timeout"} {
		if c.failLate(start.Add(after)); c.Reply.Details != want {
			t.Errorf("after %v: %s, want %s", after, c.Reply.Details, want)
		}
	}
	r.Forward.MaxStreamDuration = 0
	c = &Call{Route: r, start: start}
	c.startTimeouts(&route.Request{})
	if c.failLate(start.Add(3 * time.Second)); c.Reply.Details != "response_timeout" {
		t.Error(c.Reply.Details)
	}
}
