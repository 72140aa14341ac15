package http2

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// session is one downstream connection.
type session struct {
	server     *Server
	ctx        context.Context // of ServeConn, for the server's BaseContext
	conn       forward.Connection
	http       *config.HTTP
	downstream netip.AddrPort
	local      netip.AddrPort
	resets     atomic.Int64
	outdated   sync.Once // the client is told that the listener takes such connections no more
	running    sync.WaitGroup

	mu   sync.Mutex
	over bool // guarded by mu; the connection is closed: streams that have not begun never do
}

// pair is one header field.
type pair struct{ name, value string }

// fields implements route.Headers.
type fields []pair

func (f fields) Len() int                      { return len(f) }
func (f fields) At(i int) (name, value string) { return f[i].name, f[i].value }
func (f fields) compare(a, b pair) int         { return cmp.Compare(a.name, b.name) }

func fieldsOf(h http.Header) fields {
	f := make(fields, 0, len(h))
	for name, values := range h {
		for _, value := range values {
			f = append(f, pair{name, value})
		}
	}
	slices.SortStableFunc(f, f.compare)
	return f
}

// stream is one request.
type stream struct {
	*session
	w      http.ResponseWriter
	r      *http.Request
	query  route.Request
	call   forward.Call
	body   *replay
	record record.Record
	grpc   bool
	http   *config.HTTP // the listener's as it is now: policies reach connections that are kept open
}

// ServeHTTP implements http.Handler.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.running.Done()
	defer s.contain()
	x := &stream{session: s, w: w, r: r, grpc: strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")}
	view, conn := s.server.config.Clusters.View(), s.conn
	if !conn.Refresh(view.Config) {
		s.outdated.Do(func() { s.server.sendAway(s) })
	}
	x.http = conn.HTTP
	x.begin()
	defer x.finish()
	if !x.normalize() {
		return
	}
	permit, policy := authz.Request(x.http.RBAC, &s.conn.Peer, &x.query)
	switch {
	case !permit.Granted():
		x.call.Deny(policy)
		x.reply()
	case !view.Start(&x.call, &x.query, x.http, x.record.Start):
		x.reply()
	default:
		x.forward(permit)
	}
}

// enter has end wait for a stream. net/http may start one that the client sent just before the connection closed.
func (s *session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.running.Add(1)
	}
	return !s.over
}

// end returns when no stream runs, nor ever will.
func (s *session) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.running.Wait()
}

// contain lets net/http reset the stream of a handler that panics, which is all that ends, but not in silence.
func (s *session) contain() {
	r := recover()
	if r == nil {
		return
	}
	if r != http.ErrAbortHandler {
		s.server.config.Log.Error("panic; the stream is reset, the others go on", "listener", s.conn.Listener.Name, "err", r, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

func (x *stream) begin() {
	r := x.r
	x.record = record.Record{
		Reporter: x.conn.Reporter, Protocol: record.HTTP2, Listener: x.conn.Listener.Name, GRPC: -1, Own: x.server.config.Own,
		Downstream: x.downstream, LocalAddress: x.local, ServerName: x.conn.Peer.ServerName,
		Start: time.Now(), Method: r.Method, Authority: r.Host, Path: r.RequestURI, UserAgent: r.UserAgent(),
		RequestID: r.Header.Get("X-Request-Id"),
	}
	if x.conn.Reporter == record.Destination {
		x.record.Peer, x.record.MutualTLS = x.conn.Peer.ID, x.conn.Peer.ID != ""
	}
	if x.grpc {
		x.record.Protocol = record.GRPC
	}
	if x.record.RequestID == "" {
		x.record.RequestID = newRequestID()
	}
}

// newRequestID is a random UUID (RFC 9562, section 5.4).
func newRequestID() string {
	high, low := rand.Uint64()&^0xf000|0x4000, rand.Uint64()&^(3<<62)|2<<62
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", high>>32, high>>16&0xffff, high&0xffff, low>>48, low&(1<<48-1))
}

func (x *stream) finish() {
	x.call.End()
	rec := &x.record
	rec.Duration = time.Since(rec.Start)
	rec.Attempts = x.call.Attempts
	if x.body != nil {
		rec.RequestBytes = x.body.bytes()
	}
	if x.call.Route != nil {
		rec.Route = x.call.Route.Name
	}
	if x.call.Cluster != nil {
		rec.Cluster = x.call.Cluster.Name
	} else if x.call.Destination != nil {
		rec.Cluster = x.call.Destination.Cluster
	}
	x.call.Describe(&rec.Host)
	if x.server.config.Observer != nil {
		x.server.config.Observer.Observe(rec)
	}
	if rec.Flags&record.DownstreamGone != 0 && x.resets.Add(1) == resetBudget {
		x.server.sendAway(x.session)
	}
}

// sendAway says GOAWAY to a client that abandons too many streams (CVE-2023-44487), or whose connection is out of date.
func (s *Server) sendAway(client *session) {
	ended, cancel := context.WithCancel(client.ctx)
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for server := range s.servers {
		if server.Handler == http.Handler(client) {
			_ = server.Shutdown(ended)
		}
	}
}

// reply sends the call's own answer.
func (x *stream) reply() {
	a := &x.call.Reply
	x.record.Flags |= a.Flags
	x.record.Details = a.Details
	header := x.w.Header()
	if a.Location != "" {
		header.Set("Location", a.Location)
	}
	if a.Overloaded {
		header.Set("X-Envoy-Overloaded", "true")
	}
	if x.call.Route != nil {
		mutate(header, nil, x.call.Route.Headers.Response)
	}
	x.countInResponse(header)
	if x.grpc {
		x.replyGRPC(a)
		return
	}
	x.record.Code = a.Status
	header["Content-Type"] = nil // net/http guesses otherwise
	if a.Body != "" {
		header.Set("Content-Type", "text/plain")
	}
	x.w.WriteHeader(a.Status)
	if x.r.Method != http.MethodHead {
		n, _ := x.w.Write([]byte(a.Body))
		x.record.ResponseBytes = int64(n)
	}
}

// mutate applies the operations of the configuration.
func mutate(header http.Header, remove []string, ops []config.HeaderOp) {
	for _, name := range remove {
		header.Del(name)
	}
	for i := range ops {
		op := &ops[i]
		switch _, there := header[http.CanonicalHeaderKey(op.Name)]; {
		case op.Name == "host" || op.Name == ":authority":
			header["Host"] = []string{op.Value} // which net/http leaves to the request's own Host
		case op.Action == config.AppendOrAdd, op.Action == config.AddIfAbsent && !there:
			header.Add(op.Name, op.Value)
		case op.Action == config.OverwriteOrAdd, op.Action == config.OverwriteIfExists && there:
			header.Set(op.Name, op.Value)
		}
	}
}
