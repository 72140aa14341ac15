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

	// Of run's goroutine alone.
	changed  <-chan struct{} // closes when the state that the session knows is superseded; nil once it did
	noticed  time.Time       // when changed was seen to be closed; zero: not yet
	quiet    time.Time       // no push for changes before
	since    time.Time       // when the change being delivered was noticed; zero: none is
	requests allowance
	place    *place // while much is being sent, or nil

	mu      sync.Mutex // guards below
	session *xds.ServerSession[S]
	acked   map[xds.Type]time.Time
	waiting time.Time // since when the client has left us waiting; zero: it has not
}

func newStream[S any](s *Server[S], w wire, who Peer, nodeID string, catalog xds.Catalog[S]) *stream[S] {
	state, changed := s.config.State.Latest()
	session := xds.NewStateSession(catalog, state)
	if w.delta {
		session = xds.NewDeltaSession(catalog, state)
	}
	now := time.Now()
	return &stream[S]{
		server: s, wire: w, peer: who, nodeID: nodeID, connected: now, changed: changed, session: session,
		requests: newAllowance(s.config.RequestsPerSecond, now), acked: make(map[xds.Type]time.Time),
	}
}

// supervise returns when the stream has ended or must end.
func (st *stream[S]) supervise(failed, ended <-chan error) error {
	timeout := st.server.config.AckTimeout
	ticker := time.NewTicker(timeout / 4)
	defer ticker.Stop()
	for {
		select {
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case err := <-ended:
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

// run is the loop of a stream: request or newer state -> session -> send. It waits for as little as it can: a change wakes
// every stream, and each thing that a stream waits for is paid for then.
func (st *stream[S]) run(first received, requests <-chan received) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer st.leave()
	if err := st.request(first.Request); err != nil {
		return err
	}
	for {
		in, wait := st.plan(requests, time.Now())
		var wake <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			wake = timer.C
		}
		select {
		case r, open := <-in:
			if !open {
				<-st.wire.ctx.Done() // supervise knows why, and ends the stream
				return status.FromContextError(st.wire.ctx.Err()).Err()
			}
			if err := st.request(r.Request); err != nil {
				return err
			}
		case <-st.changed:
			st.changed, st.noticed = nil, time.Now()
		case <-wake:
		}
		if err := st.advance(time.Now()); err != nil {
			return err
		}
	}
}

// plan says whether requests are read now, and after how long to look again if nothing happens; 0: not before.
func (st *stream[S]) plan(requests <-chan received, now time.Time) (<-chan received, time.Duration) {
	var wake time.Duration
	if !st.noticed.IsZero() {
		wake = max(st.quiet.Sub(now), 1)
	}
	wait := st.requests.wait(now)
	switch {
	case wait == 0:
		return requests, wake
	case wake == 0 || wait < wake:
		wake = wait
	}
	return nil, wake
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
	_, err = st.push()
	return err
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

// advance takes the newest state once a change was noticed and the stream was left alone for long enough.
func (st *stream[S]) advance(now time.Time) error {
	if st.noticed.IsZero() || now.Before(st.quiet) {
		return nil
	}
	var state S
	state, st.changed = st.server.config.State.Latest()
	if st.since.IsZero() {
		st.since = st.noticed
	}
	st.noticed = time.Time{}
	st.mu.Lock()
	st.session.Advance(state)
	st.mu.Unlock()
	waiting, err := st.push()
	if waiting {
		st.quiet = now.Add(st.server.interval())
	} else {
		st.since = time.Time{} // the change is none for this client
	}
	return err
}

// push sends what the session has to say, and says whether the client owes an answer.
func (st *stream[S]) push() (waiting bool, err error) {
	if err := st.admit(); err != nil {
		return false, err
	}
	for {
		start := time.Now()
		response, ok, waiting := st.next(start)
		if !ok && !waiting {
			st.leave() // all is delivered, or was there already
		}
		if !ok {
			return waiting, nil
		}
		if err := st.wire.send(response); err != nil {
			return true, err
		}
		st.server.metrics.pushed(response.Type, response.ResourceBytes, time.Since(start))
	}
}

func (st *stream[S]) next(now time.Time) (m *ads.Message, ok, waiting bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	response, ok := st.session.Next()
	if !ok {
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
