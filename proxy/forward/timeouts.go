package forward

import (
	"net/http"
	"strconv"
	"time"

	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// startTimeouts sets Until to the earlier of the route's timeout and the end of max_stream_duration.
func (c *Call) startTimeouts(q *route.Request) {
	f := c.Route.Forward
	if f.Timeout > 0 {
		c.Until = c.start.Add(f.Timeout)
	}
	limit := f.MaxStreamDuration
	if f.GRPCTimeoutMax > 0 {
		if asked, ok := q.Value("grpc-timeout"); ok {
			limit = min(grpcTimeout(asked, f.GRPCTimeoutMax), f.GRPCTimeoutMax)
		}
	}
	if limit > 0 {
		c.life = c.start.Add(limit)
		c.Until = earlier(c.Until, c.life)
	}
}

var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// grpcTimeout reads the header (gRPC over HTTP/2, "Timeout"): at most eight digits and a unit.
func grpcTimeout(value string, otherwise time.Duration) time.Duration {
	last := len(value) - 1
	if last < 1 || last > 8 {
		return otherwise
	}
	n, err := strconv.ParseUint(value[:last], 10, 32)
	unit := grpcUnits[value[last]]
	if err != nil || unit == 0 {
		return otherwise
	}
	return time.Duration(n) * unit
}

// earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// TryUntil is the deadline of the current attempt's response head; zero: none. Until the head comes a try is idle.
func (c *Call) TryUntil(now time.Time) time.Time {
	by := c.Until
	if p := c.Route.Retry; p != nil {
		for _, limit := range [...]time.Duration{p.PerTryTimeout, p.PerTryIdle} {
			if limit > 0 {
				by = earlier(by, now.Add(limit))
			}
		}
	}
	return by
}

// failLate answers for whichever time is over.
func (c *Call) failLate(now time.Time) {
	switch {
	case !c.life.IsZero() && !now.Before(c.life):
		c.answer(http.StatusGatewayTimeout, 0, "downstream duration timeout", "max_duration_timeout")
	case c.Until.IsZero() || now.Before(c.Until):
		c.answer(http.StatusGatewayTimeout, record.Timeout|c.Reply.Flags, "upstream request timeout", "upstream_per_try_timeout")
	default:
		c.answer(http.StatusGatewayTimeout, record.Timeout|c.Reply.Flags, "upstream request timeout", "response_timeout")
	}
}

// FailIdle sets Reply after a wait in which nothing came for the idle timeout.
func (c *Call) FailIdle() {
	c.answer(http.StatusGatewayTimeout, record.StreamIdle|c.Reply.Flags, "stream timeout", "stream_idle_timeout")
}
