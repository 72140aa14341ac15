package adsserver

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// stream is one open stream.
type stream[S any] struct {
	server    *Server[S]
	wire      wire
	id        uint64
	peer      Peer
	nodeID    string
	connected time.Time

	next     <-chan struct{} // of follow's goroutine alone: closes when there is a newer wave
	requests allowance       // of read's goroutine alone

	// pushing is held from when the session chose a response until it is sent, so that they leave in that order.
	pushing sync.Mutex
	place   *place // guarded by pushing: while much is being sent, or nil

	mu      sync.Mutex // guards below
	session *xds.ServerSession[S]
	acked   map[xds.Type]time.Time
	waiting time.Time // since when the client has left us waiting; zero: it has not
	since   time.Time // when the change being delivered was noticed; zero: none is
}

func newStream[S any](s *Server[S], w wire, who Peer, nodeID string, catalog xds.Catalog[S]) *stream[S] {
	session := xds.NewStateSession[S]
	if w.delta {
		session = xds.NewDeltaSession[S]
	}
	now := time.Now()
	first, next := s.waves.newest.Get()
	return &stream[S]{
		server: s, wire: w, peer: who, nodeID: nodeID, connected: now, next: next, session: session(catalog, first.state),
		requests: newAllowance(s.config.RequestsPerSecond, now), acked: make(map[xds.Type]time.Time),
	}
}

// supervise returns when the stream has ended or must end.
func (st *stream[S]) supervise(ended <-chan error) error {
	timeout := st.server.config.AckTimeout
	ticker := time.NewTicker(timeout / 4)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ticker.C:
			if waited := st.waitedFor(); waited > timeout {
				st.log().Warn("ads: stream ended: client answers no more", "waited", waited)
				return status.Errorf(codes.DeadlineExceeded, "ads: a response was not answered for %v", timeout)
			}
		}
	}
}

func (st *stream[S]) waitedFor() time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.waiting.IsZero() {
		return 0
	}
	return time.Since(st.waiting)
}

// read is the loop of requests, which begins with the first. What is not taken stays with the client (HTTP/2 flow
// control).
func (st *stream[S]) read(r received) (err error) {
	defer st.leave()
	for ; err == nil; r, err = st.wire.receive() {
		if err := st.request(r.Request); err != nil {
			return err
		}
		if err := st.rest(); err != nil {
			return err
		}
	}
	return err
}

// rest waits until the client may ask again.
func (st *stream[S]) rest() error {
	wait := st.requests.wait(time.Now())
	if wait == 0 {
		return nil
	}
	select {
	case <-time.After(wait):
		return nil
	case <-st.wire.ctx.Done():
		return status.FromContextError(st.wire.ctx.Err()).Err()
	}
}

// follow is the loop of changes. It waits for as little as it can: a change wakes every stream, and each thing that a
// stream waits for is paid for then.
func (st *stream[S]) follow() error {
	for {
		select {
		case <-st.next:
		case <-st.wire.ctx.Done():
			return status.FromContextError(st.wire.ctx.Err()).Err()
		}
		var newest wave[S]
		newest, st.next = st.server.waves.newest.Get()
		st.mu.Lock()
		st.session.Advance(newest.state)
		if st.since.IsZero() {
			st.since = newest.noticed
		}
		st.mu.Unlock()
		if err := st.push(); err != nil {
			return err
		}
	}
}

// request gives one request to the session and sends what follows from it.
func (st *stream[S]) request(r xds.Request) error {
	now := time.Now()
	st.mu.Lock()
	answer, err := st.session.Request(r)
	if answer != xds.NoAnswer {
		st.answered(r, answer, now)
	}
	st.mu.Unlock()
	if err != nil {
		return status.Errorf(codes.ResourceExhausted, "ads: type %q: %v", r.Type, err)
	}
	if answer == xds.NoAnswer || len(r.Subscribe)+len(r.Unsubscribe) > 0 {
		st.requests.take(now)
	}
	if answer == xds.Nack {
		st.rejected(r)
	}
	return st.push()
}

// answered is called with mu held.
func (st *stream[S]) answered(r xds.Request, answer xds.Answer, now time.Time) {
	if answer == xds.Ack {
		st.acked[r.Type] = now
	}
	st.waiting = time.Time{}
	if st.session.Waiting() {
		st.waiting = now
		return
	}
	if !st.since.IsZero() {
		st.server.metrics.convergence.Observe(now.Sub(st.since).Seconds())
		st.since = time.Time{}
	}
}

func (st *stream[S]) rejected(r xds.Request) {
	st.server.metrics.allRejects.Inc()
	st.server.metrics.rejects[r.Type].Inc()
	st.log().Warn("ads: client rejected a response", "type", r.Type, "err", r.Detail)
}

// push sends what the session has to say.
func (st *stream[S]) push() error {
	st.pushing.Lock()
	defer st.pushing.Unlock()
	if err := st.admit(); err != nil {
		return err
	}
	for start := time.Now(); ; {
		response, ok, waiting := st.choose(start)
		if !ok && !waiting {
			st.giveUpPlace() // all is delivered, or was there already
		}
		if !ok {
			return nil
		}
		if err := st.wire.send(response); err != nil {
			return err
		}
		sent := time.Now()
		st.server.metrics.pushed(response.Type, response.ResourceBytes, sent.Sub(start))
		start = sent
	}
}

// choose is the next response; false: there is none now. waiting: the client owes an answer.
func (st *stream[S]) choose(now time.Time) (m *ads.Message, ok, waiting bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	response, ok := st.session.Next()
	if !ok {
		if st.waiting.IsZero() {
			st.since = time.Time{} // the change, if there was one, is none for this client
		}
		return nil, false, !st.waiting.IsZero()
	}
	if st.waiting.IsZero() {
		st.waiting = now
	}
	return st.wire.frame(response), true, true
}

func (st *stream[S]) status() StreamStatus {
	st.mu.Lock()
	defer st.mu.Unlock()
	status := StreamStatus{
		ID: st.id, Peer: st.peer, NodeID: st.nodeID, Delta: st.wire.delta, Connected: st.connected,
	}
	for _, t := range st.session.Status() {
		status.Types = append(status.Types, TypeStatus{TypeStatus: t, LastAck: st.acked[t.Type]})
	}
	return status
}

func (st *stream[S]) log() *slog.Logger {
	return st.server.config.Log.With("peer", st.peer.ID, "node", st.nodeID, "stream", st.id)
}
