package forward

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/proxy/http1/message"
	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// maxReplay is how much of a request's body is kept for another attempt, in bytes (Envoy's per_request_buffer_limit
// serves the same end).
const maxReplay = 64 << 10

// session serves the requests of one HTTP/1.1 connection; everything in it is reused.
type session struct {
	f *Forwarder
	c Connection

	query    route.Request
	call     Call
	edit     message.Edit // of the request
	response message.Edit
	record   record.Record
	base     record.Record // what all records of the connection have
}

func newSession(f *Forwarder, conn net.Conn, c Connection) *session {
	s := &session{f: f, c: c, base: f.record(conn, &c)}
	s.query.Scheme = "http"
	if c.Peer.TLS {
		s.query.Scheme = "https"
	}
	s.query.Source = s.base.Downstream.Addr()
	return s
}

// Refused implements http1.Handler.
func (s *session) Refused(status int, err error) {
	s.record = s.base
	s.record.Start, s.record.Code, s.record.Flags, s.record.Details = time.Now(), status, record.DownstreamProtocol, "http1.codec_error"
	s.observe()
}

func (s *session) observe() {
	s.f.observe(&s.record)
}

// Serve implements http1.Handler.
func (s *session) Serve(ctx context.Context, x *http1.Exchange) {
	now := time.Now()
	view := s.f.config.Clusters.View()
	served := false
	defer func() {
		if !served { // a panic goes by: the cluster's counts, and the upstream, outlive this connection
			s.call.End()
			x.Abort()
		}
	}()
	if !s.c.Refresh(view.Config) {
		x.Last()
	}
	s.begin(x, now)
	permit, policy := authz.Request(s.c.HTTP.RBAC, &s.c.Peer, &s.query)
	switch {
	case !permit.Granted():
		s.call.Deny(policy)
		s.reply(x)
	case !view.Start(&s.call, &s.query, s.c.HTTP, now), !s.carriable(x.Request):
		s.reply(x)
	default:
		s.forward(ctx, x, permit)
	}
	s.call.End()
	x.Settle()
	s.finish(x)
	served = true
}

func (s *session) begin(x *http1.Exchange, now time.Time) {
	r := x.Request
	s.record = s.base
	s.record.Start, s.record.Method, s.record.Authority, s.record.Path = now, r.Method, r.Host, r.Path
	s.record.UserAgent = r.UserAgent()
	s.query.Authority, s.query.Method, s.query.Headers = r.Host, r.Method, r
	s.query.Path, s.query.Query = r.PathOnly(), ""
	if r.PathEnd < len(r.Path) {
		s.query.Query = r.Path[r.PathEnd+1:]
	}
	s.query.Random = rand.Uint64()
	s.edit.Reset()
	id, ok := r.RequestID()
	if !ok {
		id = x.NewRequestID(rand.Uint64(), rand.Uint64())
		s.edit.Replace("x-request-id", id)
	}
	s.record.RequestID = id
	if t := s.c.HTTP.RequestTimeout; t > 0 {
		x.ReceiveBy = now.Add(t)
	}
}

// finish completes the record.
func (s *session) finish(x *http1.Exchange) {
	rec := &s.record
	rec.Duration = time.Since(rec.Start)
	rec.Code, rec.RequestBytes, rec.ResponseBytes = x.Status, x.RequestBytes, x.ResponseBytes
	rec.Attempts = s.call.Attempts
	if s.call.Route != nil {
		rec.Route = s.call.Route.Name
	}
	if s.call.Cluster != nil {
		rec.Cluster = s.call.Cluster.Name
	} else if s.call.Destination != nil {
		rec.Cluster = s.call.Destination.Cluster
	}
	s.call.Describe(&rec.Host)
	s.observe()
}

// reply sends the call's own answer.
func (s *session) reply(x *http1.Exchange) {
	a := &s.call.Reply
	s.record.Flags |= a.Flags
	s.record.Details = a.Details
	fields := make([]message.Pair, 0, 4)
	if a.Location != "" {
		fields = append(fields, message.Pair{Name: "location", Value: a.Location})
	}
	if a.Overloaded {
		fields = append(fields, message.Pair{Name: "x-envoy-overloaded", Value: "true"})
	}
	if s.call.Route != nil {
		for i := range s.call.Route.Headers.Response {
			op := &s.call.Route.Headers.Response[i]
			if op.Action != config.OverwriteIfExists {
				fields = append(fields, message.Pair{Name: op.Name, Value: op.Value})
			}
		}
	}
	if s.call.Attempts > 0 {
		fields = append(fields, s.attempts()...)
	}
	x.Reply(a.Status, a.Body, fields...)
}

// prepare completes the edit of the request's head.
func (s *session) prepare(x *http1.Exchange) {
	d := s.call.Destination
	e := &s.edit
	if _, ok := x.Request.ForwardedProto(); !ok {
		e.Replace("x-forwarded-proto", s.query.Scheme)
	}
	e.Remove = append(e.Remove, "x-envoy-internal") // which only an Envoy that knows who is inside may say
	s.clientCert(e)
	applyOps(e, x.Request.Has, d.Headers.RemoveRequest, d.Headers.Request) // after our own, which they may change
	if e.Path = s.call.Route.RewritePath(&s.query); e.Path != "" {
		e.Replace("x-envoy-original-path", x.Request.Path)
	}
	if d.HostRewrite != "" {
		e.Host = d.HostRewrite
		s.keepHost(x.Request.Host)
	}
	x.Until = s.call.Until
	if x.Idle = s.call.Route.Forward.IdleTimeout; x.Idle == 0 {
		x.Idle = s.c.HTTP.StreamIdleTimeout
	}
}

func (s *session) forward(ctx context.Context, x *http1.Exchange, permit authz.Permit) {
	permit.Require()
	s.prepare(x)
	limit := 0
	if s.call.Route.Retry != nil {
		limit = maxReplay
	}
	whole, err := x.Prepare(limit)
	if err != nil {
		s.fail(x, result{outcome: route.NoUpstream, err: err})
		return
	}
	for {
		if !s.call.Next() {
			s.reply(x)
			return
		}
		up, outcome := s.attempt(ctx, x, whole)
		if !s.again(ctx, x, up, outcome, whole) {
			return
		}
	}
}

func (s *session) gone() {
	s.record.Flags |= record.DownstreamGone
	s.record.Details = "downstream_remote_disconnect"
}

// result is how an attempt went.
type result struct {
	outcome  route.Outcome
	response *message.Response
	err      error
}

// attempt sends the request to the host that was picked. A kept connection that dies before it answers, or refuses
// because it is going away, is replaced once, if the request may be sent again.
func (s *session) attempt(ctx context.Context, x *http1.Exchange, whole bool) (*http1.Conn, result) {
	s.countAttempt()
	for fresh := false; ; fresh = true {
		up, err := s.connect(ctx, fresh)
		if err != nil {
			switch {
			case errors.Is(err, ErrOverflow):
				return nil, result{outcome: route.OverflowedPool, err: err}
			case errors.Is(err, ErrWaited):
				return nil, result{outcome: waited(ctx), err: err}
			}
			s.f.config.Log.Debug("connect", "cluster", s.call.Cluster.Name, "endpoint", s.call.Host.Address, "err", err)
			return nil, result{outcome: route.ConnectFailed, err: err}
		}
		kept := up.Uses > 0
		unsent := x.Send(up, &s.edit)
		if unsent == nil {
			now := time.Now()
			s.record.Request = now.Sub(s.record.Start)
			response, err := x.Await(up, s.call.TryUntil(now))
			if err == nil {
				return up, result{outcome: route.Responded, response: response}
			}
			died := kept && errors.Is(err, http1.ErrClosed) && x.Request.Idempotent()
			if !whole || !died && (fresh || !errors.Is(err, ErrRefused)) {
				up.Release()
				return nil, result{outcome: outcomeOf(err), err: err}
			}
		} else if !kept || !whole {
			up.Release()
			return nil, result{outcome: route.Reset, err: unsent}
		}
		up.Release()
	}
}

// waited is the outcome of waiting for a connection in vain.
func waited(ctx context.Context) route.Outcome {
	if ctx.Err() != nil {
		return route.NoUpstream
	}
	return route.TriedTooLong
}

func outcomeOf(err error) route.Outcome {
	switch {
	case errors.Is(err, http1.ErrTimeout):
		return route.TriedTooLong
	case errors.Is(err, http1.ErrClientGone), errors.Is(err, http1.ErrBody), errors.Is(err, http1.ErrSlow), errors.Is(err, http1.ErrIdle):
		return route.NoUpstream
	case errors.Is(err, ErrRefused):
		return route.Refused
	case errors.Is(err, ErrReset):
		return route.StreamReset
	}
	return route.Reset
}

// again finishes the exchange, or tells that there shall be another attempt.
func (s *session) again(ctx context.Context, x *http1.Exchange, up *http1.Conn, r result, whole bool) bool {
	now := time.Now()
	status := 0
	if r.response != nil {
		status = r.response.Status
		s.record.Upstream = now.Sub(s.record.Start)
	}
	if whole && r.outcome != route.NoUpstream && s.mayRetry(r) {
		s.call.Done(r.outcome, status, now)
		if s.call.Again(r.outcome, status, -1, now) {
			discard(up)
			return wait(ctx, s.call.Backoff())
		}
	}
	if r.response != nil {
		s.relay(ctx, x, up, status, now)
		return false
	}
	s.call.Done(r.outcome, 0, now)
	s.fail(x, r)
	return false
}

// mayRetry is a look ahead that spares the report's order for responses that are relayed.
func (s *session) mayRetry(r result) bool {
	if r.outcome == route.Responded {
		return r.response.Status != 101 && route.RetriesStatus(s.call.Route.Retry, r.response.Status, -1)
	}
	return route.Retries(s.call.Route.Retry, r.outcome)
}

// discard drops a response that is not wanted; its connection with it, for reading it to its end may take long.
func discard(up *http1.Conn) {
	if up != nil {
		up.Release()
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// relay sends the response on and keeps the connection if it may be kept.
func (s *session) relay(ctx context.Context, x *http1.Exchange, up *http1.Conn, status int, now time.Time) {
	s.call.Responded(status, now)
	if s.c.Reporter == record.Source {
		s.record.Peer, s.record.MutualTLS = up.Peer, up.Peer != ""
	}
	s.record.Details = "via_upstream"
	s.record.Flags |= s.call.Reply.Flags
	d := s.call.Destination
	s.response.Reset()
	if len(d.Headers.Response)+len(d.Headers.RemoveResponse) > 0 {
		applyOps(&s.response, func(name string) bool { return up.Response().Has(name) }, d.Headers.RemoveResponse, d.Headers.Response)
	}
	s.response.Set = append(s.response.Set, s.attempts()...)
	if s.call.Cookie != "" {
		s.response.Add = append(s.response.Add, message.Pair{Name: "set-cookie", Value: s.call.Cookie})
	}
	reusable, err := x.Relay(ctx, up, &s.response)
	if err != nil {
		s.cut(err)
	}
	if !reusable {
		up.Release()
		return
	}
	s.call.Cluster.keep(&s.call, up)
}

// cut records why a response could not be finished.
func (s *session) cut(err error) {
	switch {
	case errors.Is(err, http1.ErrClientGone), errors.Is(err, http1.ErrSlow), errors.Is(err, http1.ErrBody):
		s.gone()
	case errors.Is(err, http1.ErrIdle):
		s.record.Flags |= record.StreamIdle
		s.record.Details = "stream_idle_timeout"
	case errors.Is(err, http1.ErrTimeout):
		s.record.Flags |= record.Timeout
		s.record.Details = "response_timeout"
	case errors.Is(err, message.ErrMalformed):
		s.record.Flags |= record.UpstreamProtocol
		s.record.Details = "upstream_reset_after_response_started{protocol error}"
	default:
		flag, reason := record.ConnectionTermination, "connection termination"
		if errors.Is(err, ErrReset) || errors.Is(err, ErrRefused) {
			flag, reason = record.RemoteReset, "remote reset"
		}
		s.record.Flags |= flag
		s.record.Details = "upstream_reset_after_response_started{" + reason + "}"
		s.call.Cluster.Set.Report(s.call.Host, balance.LocalFailure, time.Now())
	}
}

// fail answers a request that got no response.
func (s *session) fail(x *http1.Exchange, r result) {
	switch {
	case errors.Is(r.err, http1.ErrClientGone):
		s.gone()
		x.Truncated = true
		return
	case errors.Is(r.err, http1.ErrIdle):
		s.call.FailIdle()
	case errors.Is(r.err, http1.ErrSlow):
		s.call.Reply = slow(!x.ReceiveBy.IsZero() && !time.Now().Before(x.ReceiveBy))
	case errors.Is(r.err, http1.ErrBody):
		s.call.Reply = Reply{Status: 400, Flags: record.DownstreamProtocol, Body: "Bad Request", Details: "http1.codec_error"}
	case errors.Is(r.err, message.ErrMalformed), errors.Is(r.err, message.ErrTooLarge):
		s.call.FailProtocol()
	default:
		s.call.Fail(r.outcome)
	}
	s.reply(x)
}
