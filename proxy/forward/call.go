package forward

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// Reply is an answer that the proxy gives itself. Body and Details are Envoy's.
type Reply struct {
	Status  int
	Flags   record.Flags
	Body    string
	Details string
	// Location is set for a redirect; Overloaded asks for x-envoy-overloaded: true.
	Location   string
	Overloaded bool
}

// Call is one request on its way. The zero Call is ready for Start, and after End for another.
type Call struct {
	Route       *route.Route
	Destination *route.Destination
	Cluster     *Cluster
	Host        *balance.Host // of the current attempt
	Attempts    int
	// Until is when the whole response must have been sent; zero: never.
	Until time.Time
	Reply Reply // the answer, after a method returned false
	// Cookie is a Set-Cookie for the response, which keeps the client with its host; "" is none.
	Cookie string

	life     time.Time // the end of max_stream_duration; zero: none
	start    time.Time
	hash     balance.Request
	tried    []string // addresses of the hosts that were tried, and their priorities
	triedAt  []int
	beyond   []int // priorities that the next attempt goes past
	running  bool  // a request of the host and of the breaker is counted
	retrying bool  // a retry of the breaker is counted
}

func (c *Call) now() time.Time { return time.Now() }

// Start decides where the request goes. False: Reply is the answer, and End still follows.
func (v *View) Start(c *Call, q *route.Request, h *config.HTTP, now time.Time) bool {
	*c = c.fresh()
	c.start = now
	c.Route = v.Table(h).Match(q)
	switch {
	case c.Route == nil:
		return c.answer(http.StatusNotFound, record.NoRoute, "", "route_not_found")
	case c.Route.NonForwarding:
		return c.answer(http.StatusServiceUnavailable, record.NoCluster, "", "cluster_not_found")
	case c.Route.Direct != nil:
		return c.answer(c.Route.Direct.Status, 0, string(c.Route.Direct.Body), "direct_response")
	case c.Route.Redirect != nil:
		c.Reply.Location = c.Route.Location(q)
		return c.answer(c.Route.Redirect.Status, 0, "", "direct_response")
	}
	c.Destination = c.Route.Choose(q.Random >> 20)
	if c.Cluster = v.Cluster(c.Destination.Cluster); c.Cluster == nil {
		status := c.Route.Forward.ClusterNotFound
		if status == 0 {
			status = http.StatusServiceUnavailable
		}
		return c.answer(status, record.NoCluster, "", "cluster_not_found")
	}
	return c.startForward(q)
}

func (c *Call) startForward(q *route.Request) bool {
	c.startTimeouts(q)
	if len(c.Route.Forward.Hash) > 0 {
		c.hash.Hash, c.hash.HasHash, c.Cookie = c.Route.Hash(q)
	}
	e := c.Cluster.endpoints
	if e != nil && e.DropPermillion > 0 && rand.Uint32N(1_000_000) < e.DropPermillion {
		return c.answer(http.StatusServiceUnavailable, record.Dropped, "drop overload", "drop_overload")
	}
	return true
}

// fresh is the zero Call, with room for what is tried.
func (c *Call) fresh() Call {
	return Call{tried: c.tried[:0], triedAt: c.triedAt[:0], beyond: c.beyond[:0]}
}

// Deny makes the reply to a request without a Permit; End still follows.
func (c *Call) Deny(policy string) {
	*c = c.fresh()
	if policy == "" {
		policy = "none"
	}
	c.answer(http.StatusForbidden, 0, "RBAC: access denied", "rbac_access_denied_matched_policy["+policy+"]")
}

func (c *Call) answer(status int, flags record.Flags, body, details string) bool {
	c.Reply.Status, c.Reply.Flags, c.Reply.Body, c.Reply.Details = status, flags, body, details
	return false
}

// Next begins an attempt: it picks a host and takes a place among the cluster's requests. False: Reply is the answer.
// Done must follow.
func (c *Call) Next() bool {
	if c.Cluster.Set == nil {
		return c.answer(http.StatusServiceUnavailable, record.NoHealthyUpstream, "no healthy upstream", "no_healthy_upstream")
	}
	q := c.hash
	if len(c.tried) > 0 && c.Route.Retry != nil && c.Route.Retry.OtherHost {
		q.Exclude = c.wasTried
	}
	q.Avoid = c.beyond
	host, err := c.Cluster.Set.Pick(q)
	if err != nil {
		return c.answer(http.StatusServiceUnavailable, record.NoHealthyUpstream, "no healthy upstream", "no_healthy_upstream")
	}
	if !c.Cluster.Set.Breaker().Requests.Acquire() {
		return c.overflow()
	}
	host.Begin()
	c.Host, c.running = host, true
	c.Attempts++
	return true
}

func (c *Call) overflow() bool {
	c.Reply.Overloaded = true
	return c.failed("overflow", http.StatusServiceUnavailable, record.Overflow)
}

func (c *Call) wasTried(h *balance.Host) bool { return slices.Contains(c.tried, h.Address) }

// Done ends an attempt and tells outlier detection: with a status for route.Responded, else with what went wrong.
// A request that the client gave up, or the proxy refused, is told to nobody: pass route.NoUpstream.
func (c *Call) Done(o route.Outcome, status int, now time.Time) {
	if !c.running {
		return
	}
	c.release()
	switch o {
	case route.NoUpstream, route.OverflowedPool:
	case route.Responded:
		c.Cluster.Set.Report(c.Host, balance.ResultOf(status), now)
	default:
		c.Cluster.Set.Report(c.Host, balance.LocalFailure, now)
	}
}

// Responded reports the response's head to outlier detection; the request goes on to be counted until Done or End.
func (c *Call) Responded(status int, now time.Time) {
	if !c.running {
		return // Done has told
	}
	c.Cluster.Set.Report(c.Host, balance.ResultOf(status), now)
}

func (c *Call) release() {
	c.running = false
	c.Host.End()
	c.Cluster.Set.Breaker().Requests.Release()
}

// Again tells whether the policy, the attempts left, the budget and the time allow another attempt; it is asked
// after Done with a request that can be sent again. Wait for Backoff before Next.
func (c *Call) Again(o route.Outcome, status, grpc int, now time.Time) bool {
	p := c.Route.Retry
	wanted := route.Retries(p, o)
	if o == route.Responded {
		wanted = route.RetriesStatus(p, status, grpc)
	}
	if !wanted || !c.Until.IsZero() && !now.Before(c.Until) {
		return false
	}
	if c.Attempts > int(p.Attempts) {
		c.Reply.Flags |= record.RetryLimit
		return false
	}
	if !c.retrying && !c.Cluster.Set.Breaker().AcquireRetry() {
		c.Reply.Flags |= record.Overflow
		return false
	}
	c.retrying = true
	c.tried, c.triedAt = append(c.tried, c.Host.Address), append(c.triedAt, c.Host.Priority)
	if p.FurtherAfter > 0 && len(c.tried)%int(p.FurtherAfter) == 0 {
		c.beyond = append(c.beyond[:0], c.triedAt...)
	}
	return true
}

// Backoff is how long to wait before the next attempt: full jitter under an exponential bound, as Envoy.
func (c *Call) Backoff() time.Duration {
	p := c.Route.Retry
	bound := p.BackoffBase << min(c.Attempts-1, 16)
	if bound > p.BackoffMax && p.BackoffMax > 0 {
		bound = p.BackoffMax
	}
	if bound <= 0 {
		return 0
	}
	return rand.N(bound)
}

// End gives back whatever the call still holds.
func (c *Call) End() {
	if c.running {
		c.release()
	}
	if c.retrying {
		c.retrying = false
		c.Cluster.Set.Breaker().ReleaseRetry()
	}
}

// failed makes Envoy's reply to a request that got no response head.
func (c *Call) failed(reason string, status int, flags record.Flags) bool {
	body := "upstream connect error or disconnect/reset before headers. "
	if c.Attempts > 1 {
		body += "retried and the latest reset reason: "
	} else {
		body += "reset reason: "
	}
	c.answer(status, flags|c.Reply.Flags, body+reason, "upstream_reset_before_response_started{"+reason+"}")
	return false
}

// Fail sets Reply for an outcome after which there is no other attempt.
func (c *Call) Fail(o route.Outcome) {
	switch o {
	case route.ConnectFailed:
		c.failed("remote connection failure", http.StatusServiceUnavailable, record.ConnectFailure)
	case route.OverflowedPool:
		c.overflow()
	case route.Refused, route.StreamReset:
		c.failed("remote reset", http.StatusServiceUnavailable, record.RemoteReset)
	case route.TriedTooLong:
		c.failLate(c.now())
	default:
		c.failed("connection termination", http.StatusServiceUnavailable, record.ConnectionTermination)
	}
}

// slow is the reply to a request that was not received in time: whole says that request_timeout passed, otherwise the
// stream was idle.
func slow(whole bool) Reply {
	if whole {
		return Reply{Status: http.StatusRequestTimeout, Body: "request timeout", Details: "request_overall_timeout"}
	}
	return Reply{Status: http.StatusRequestTimeout, Flags: record.StreamIdle, Body: "stream timeout", Details: "stream_idle_timeout"}
}

// FailSlow sets Reply after a request that was not received in time; whole as for slow.
func (c *Call) FailSlow(whole bool) { c.Reply = slow(whole) }

// FailProtocol sets Reply after a response that could not be understood.
func (c *Call) FailProtocol() {
	c.failed("protocol error", http.StatusBadGateway, record.UpstreamProtocol)
}

// Describe fills in where the last attempt went.
func (c *Call) Describe(u *record.Upstream) {
	if c.Host == nil {
		return
	}
	u.Region, u.Zone, u.Subzone, u.Priority = c.Host.Region, c.Host.Zone, c.Host.Subzone, uint32(c.Host.Priority)
	if e := endpoint(c.Host); e != nil {
		u.Address, u.Cluster, u.Workload, u.Gateway = e.Address, e.Cluster, e.Workload, e.Gateway
	}
}
