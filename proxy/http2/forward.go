package http2

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/http1/message"
	"github.com/periplus-mesh/periplus/proxy/http2/upstream"
	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// Why an attempt was cancelled.
var (
	errTimeout = errors.New("response timeout")
	errIdle    = errors.New("stream idle timeout")
	errSlow    = errors.New("request was not received in time")
)

// errProtocol: the upstream switched protocols, which no request over HTTP/2 can ask for.
var errProtocol = errors.New("101 without a request for it")

func (x *stream) forward(permit authz.Permit) {
	permit.Require()
	limit := 0
	if x.call.Route.Retry != nil {
		limit = x.server.config.MaxReplay
	}
	watch := &deadline{}
	x.body = newReplay(x.r.Body, limit, func() { watch.idle(x.idleTimeout()) })
	head := x.prepare()
	for {
		if !x.call.Next() {
			x.reply()
			return
		}
		if !x.attempt(head, watch) {
			return
		}
		if !pause(x.r.Context(), x.call.Backoff()) {
			x.gone()
			return
		}
	}
}

// prepare makes what all attempts send.
func (x *stream) prepare() *http.Request {
	d := x.call.Destination
	header := x.r.Header.Clone()
	header.Del("Host")
	if header["User-Agent"] == nil {
		header["User-Agent"] = []string{""} // net/http adds its own otherwise
	}
	header.Set("X-Request-Id", x.record.RequestID)
	if header.Get("X-Forwarded-Proto") == "" {
		header.Set("X-Forwarded-Proto", x.query.Scheme)
	}
	header.Del("X-Envoy-Internal") // which only an Envoy that knows who is inside may say
	x.clientCert(header)
	mutate(header, d.Headers.RemoveRequest, d.Headers.Request)
	header.Del("Expect")
	path := x.call.Route.RewritePath(&x.query)
	if path == "" {
		path = x.record.Path
	} else {
		header.Set("X-Envoy-Original-Path", x.record.Path)
	}
	path, query, asked := strings.Cut(path, "?")
	host := x.r.Host
	if set := header.Get("Host"); set != "" {
		host = set
	}
	if d.HostRewrite != "" {
		host = d.HostRewrite
		x.keepHost(header)
	}
	return &http.Request{
		Method: x.r.Method, Host: host, Header: header, ContentLength: x.r.ContentLength, Trailer: x.r.Trailer,
		URL: &url.URL{Scheme: "http", Opaque: path, RawQuery: query, ForceQuery: asked},
	}
}

// attempt sends the request to the host that was picked; it returns true if there shall be another attempt.
func (x *stream) attempt(head *http.Request, watch *deadline) (again bool) {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	watch.begin(cancel)
	defer watch.stop()
	watch.until(x.call.TryUntil(time.Now()), errTimeout)
	watch.idle(x.idleTimeout())
	slow := x.limitReceiving(cancel)
	up, response, err := x.send(ctx, head)
	slow()
	now := time.Now()
	status, grpc := 0, -1
	outcome := outcomeOf(ctx, err)
	if err == nil {
		defer response.Body.Close()
		grpc = grpcStatus(response.Header)
		status = effectiveStatus(response.StatusCode, grpc)
		x.record.Upstream = now.Sub(x.record.Start)
	}
	if x.mayRetry(outcome, status, grpc) {
		x.call.Done(outcome, status, now)
		if x.call.Again(outcome, status, grpc, now) {
			x.body.end()
			return true
		}
	}
	if err != nil {
		x.call.Done(outcome, 0, now)
		x.fail(outcome, cmp.Or(context.Cause(ctx), err))
		return false
	}
	x.call.Responded(status, now)
	watch.until(x.call.Until, errTimeout)
	x.relay(ctx, up, response, watch)
	return false
}

// limitReceiving cancels an attempt when the whole request has not been received in time. The limit ends with the
// response's head, as Envoy's: call what is returned then.
func (x *stream) limitReceiving(cancel context.CancelCauseFunc) (stop func() bool) {
	limit := x.http.RequestTimeout
	if limit == 0 || x.r.ContentLength == 0 {
		return func() bool { return true }
	}
	return time.AfterFunc(time.Until(x.record.Start.Add(limit)), func() {
		if !x.body.received() {
			cancel(errSlow)
		}
	}).Stop
}

func (x *stream) mayRetry(o route.Outcome, status, grpc int) bool {
	p := x.call.Route.Retry
	if o == route.NoUpstream || x.body == nil || !x.body.again() {
		return false
	}
	if o == route.Responded {
		return route.RetriesStatus(p, status, grpc)
	}
	return route.Retries(p, o)
}

// send is one attempt up to the response's head. A kept connection that refuses the stream, because it is going
// away, is replaced once: the request was not processed (RFC 9113, section 8.7). So is one that died before it answered
// what may be sent twice.
func (x *stream) send(ctx context.Context, head *http.Request) (*upstream.Conn, *http.Response, error) {
	for first := true; ; first = false {
		up, err := x.server.upstreams.Connect(ctx, &x.call, x.http2Upstream(), time.Time{})
		if err != nil {
			return nil, nil, errConnect{err}
		}
		request := head.WithContext(ctx)
		request.URL.Host = x.call.Host.Address
		request.Body = http.NoBody
		end := func() {}
		if x.r.ContentLength != 0 {
			body := x.body.reader()
			request.Body = body
			if !x.http2Upstream() {
				end = up.Uploads(body)
			}
		}
		x.countAttempt(request.Header)
		x.record.Request = time.Since(x.record.Start)
		response, err := up.RoundTrip(request)
		end()
		if err == nil && response.StatusCode < http.StatusOK {
			response.Body.Close()
			err = errProtocol
		}
		died := up.Used.Load() && !x.http2Upstream() && closedIdle(err) && idempotent(request.Method)
		if err == nil || !first || !died && !refused(err) || !x.body.again() {
			up.Used.Store(true)
			return up, response, err
		}
		x.body.end()
	}
}

// http2Upstream tells which protocol the cluster is spoken to.
func (x *stream) http2Upstream() bool {
	return x.call.Cluster.Settings.Protocol != config.UpstreamHTTP1
}

// errConnect: nothing was sent.
type errConnect struct{ error }

func (e errConnect) Unwrap() error { return e.error }

// refused: the stream was not processed. net/http's errors for a connection that is going away have no type.
func refused(err error) bool {
	var reset http2.StreamError
	if errors.As(err, &reset) {
		return reset.Code == http2.ErrCodeRefusedStream
	}
	text := err.Error()
	return strings.Contains(text, "graceful shutdown GOAWAY") || strings.Contains(text, "client conn not usable") ||
		strings.Contains(text, "client connection is closed") || strings.Contains(text, "client connection force closed")
}

// closedIdle: the connection was closed before the first byte of a response. net/http's errors for it have no type.
func closedIdle(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "server closed idle connection") || strings.Contains(err.Error(), "Transport failed to read from server"))
}

// idempotent: RFC 9110, section 9.2.2.
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

func outcomeOf(ctx context.Context, err error) route.Outcome {
	var connect errConnect
	cause := context.Cause(ctx)
	switch {
	case err == nil:
		return route.Responded
	case errors.Is(err, forward.ErrOverflow):
		return route.OverflowedPool
	case errors.Is(cause, errTimeout):
		return route.TriedTooLong
	case cause != nil:
		return route.NoUpstream // the client went away, or does not send, or nothing came for too long
	case errors.As(err, &connect):
		return route.ConnectFailed
	case refused(err):
		return route.Refused
	case errors.As(err, new(http2.StreamError)):
		return route.StreamReset
	}
	return route.Reset
}

func (x *stream) gone() {
	x.record.Flags |= record.DownstreamGone
	x.record.Details = "downstream_remote_disconnect"
}

// fail answers a request that got no response; why is what cancelled the attempt, or ended it.
func (x *stream) fail(o route.Outcome, why error) {
	unsent := x.r.ContentLength != 0 && !x.body.received()
	switch {
	case errors.Is(why, errSlow), errors.Is(why, errIdle) && unsent:
		x.call.FailSlow(errors.Is(why, errSlow))
	case errors.Is(why, errIdle):
		x.call.FailIdle()
	case errors.Is(why, errProtocol):
		x.call.FailProtocol()
	case o == route.NoUpstream:
		x.gone()
		panic(http.ErrAbortHandler) // net/http ends the stream with a reset
	default:
		x.call.Fail(o)
	}
	x.reply()
}

// relay sends the response on as it comes.
func (x *stream) relay(ctx context.Context, up *upstream.Conn, response *http.Response, watch *deadline) {
	x.record.Details = "via_upstream"
	x.record.Flags |= x.call.Reply.Flags
	if x.conn.Reporter == record.Source {
		x.record.Peer, x.record.MutualTLS = up.Peer, up.Peer != ""
	}
	header := x.w.Header()
	for name, values := range response.Header {
		header[name] = values
	}
	endHere(header)
	mutate(header, x.call.Destination.Headers.RemoveResponse, x.call.Destination.Headers.Response)
	if _, ok := header["Content-Type"]; !ok {
		header["Content-Type"] = nil // net/http guesses otherwise
	}
	x.countInResponse(header)
	if x.call.Cookie != "" {
		header.Add("Set-Cookie", x.call.Cookie)
	}
	x.record.Code, x.record.GRPC = response.StatusCode, grpcStatus(response.Header)
	x.w.WriteHeader(response.StatusCode)
	if response.ContentLength != 0 && x.r.Method != http.MethodHead {
		x.copyBody(ctx, response.Body, watch)
	}
	for name, values := range response.Trailer {
		if message.Trailing(name) {
			header[http.TrailerPrefix+name] = values
		}
	}
	if status := grpcStatus(response.Trailer); status >= 0 {
		x.record.GRPC = status
	}
}

// copyBody flushes after each part: the peers may wait for each other.
func (x *stream) copyBody(ctx context.Context, body io.Reader, watch *deadline) {
	controller := http.NewResponseController(x.w)
	buffer := make([]byte, 16<<10)
	err := controller.Flush()
	for err == nil {
		var n int
		n, err = body.Read(buffer)
		if n > 0 {
			watch.idle(x.idleTimeout())
			if _, lost := x.w.Write(buffer[:n]); lost != nil {
				x.gone()
				panic(http.ErrAbortHandler)
			}
			x.record.ResponseBytes += int64(n)
			if err == nil {
				err = controller.Flush()
			}
		}
	}
	if err != io.EOF {
		x.cut(ctx)
	}
}

func (x *stream) idleTimeout() time.Duration {
	if t := x.call.Route.Forward.IdleTimeout; t > 0 {
		return t
	}
	return x.http.StreamIdleTimeout
}

// cut resets the stream after a response that could not be finished.
func (x *stream) cut(ctx context.Context) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errTimeout):
		x.record.Flags |= record.Timeout
		x.record.Details = "response_timeout"
	case errors.Is(cause, errIdle):
		x.record.Flags |= record.StreamIdle
		x.record.Details = "stream_idle_timeout"
	case cause != nil:
		x.gone()
	default:
		x.record.Flags |= record.RemoteReset
		x.record.Details = "upstream_reset_after_response_started{remote reset}"
		x.call.Done(route.Reset, 0, time.Now())
	}
	panic(http.ErrAbortHandler)
}

func pause(ctx context.Context, d time.Duration) bool {
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
