package http2

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

var errAbandoned = errors.New("attempt is over")

// replay is a request's body that several attempts can send, one after the other, as long as it has not grown
// beyond its limit.
//
// An attempt's reader waits for the client, who may send nothing for a long time; net/http does not tell that an
// upstream has reset the stream before that read is over. So closing the current reader ends a read that waits, and
// for want of another way the whole body with it: there is no further attempt then.
type replay struct {
	source io.ReadCloser
	limit  int
	moved  func() // called when bytes came
	read   atomic.Int64

	reading  sync.Mutex // held while the source is read; guards the next three
	recorded []byte     // from the body's first byte, if whole
	whole    bool       // recorded has everything that was read
	err      error      // of the source, io.EOF included

	mu      sync.Mutex
	attempt int  // guarded by mu; the number of the current one
	waiting bool // guarded by mu; a read of the source runs
	broken  bool // guarded by mu; closed while it was read
}

func newReplay(source io.ReadCloser, limit int, moved func()) *replay {
	return &replay{source: source, limit: limit, moved: moved, whole: true}
}

// reader begins an attempt; earlier readers fail from now on.
func (r *replay) reader() *attemptBody {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempt++
	return &attemptBody{body: r, attempt: r.attempt}
}

// end makes the current attempt's reader fail from its next read on, and closing it harmless to the next attempt.
func (r *replay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempt++
}

// again tells whether another attempt can have the whole body.
func (r *replay) again() bool {
	if !r.reading.TryLock() {
		return false // the last attempt waits for the client: a retry would wait behind it
	}
	defer r.reading.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whole && !r.broken
}

// received tells whether the client has sent all of it.
func (r *replay) received() bool {
	if !r.reading.TryLock() {
		return false // somebody waits for the client
	}
	defer r.reading.Unlock()
	return r.err == io.EOF
}

// bytes is how much the client has sent.
func (r *replay) bytes() int64 { return r.read.Load() }

type attemptBody struct {
	body    *replay
	attempt int
	at      int  // in recorded; guarded by the body's reading
	closed  bool // guarded by the body's mu
}

// Close ends the reader, and the Read that waits for the client.
func (a *attemptBody) Close() error {
	r := a.body
	r.mu.Lock()
	defer r.mu.Unlock()
	a.closed = true
	if r.waiting && a.attempt == r.attempt {
		r.broken = true
		return r.source.Close()
	}
	return nil
}

// wait begins a's read of the source; false: a is over.
func (r *replay) wait(a *attemptBody) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = !a.closed && a.attempt == r.attempt
	return r.waiting
}

func (r *replay) waited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = false
}

// Read implements io.Reader.
func (a *attemptBody) Read(p []byte) (int, error) {
	r := a.body
	r.reading.Lock()
	defer r.reading.Unlock()
	if !r.wait(a) {
		return 0, errAbandoned
	}
	defer r.waited()
	switch {
	case a.at < len(r.recorded):
		n := copy(p, r.recorded[a.at:])
		a.at += n
		return n, nil
	case r.err != nil:
		return 0, r.err
	}
	n, err := r.source.Read(p)
	r.read.Add(int64(n))
	r.err = err
	if r.whole = r.whole && len(r.recorded)+n <= r.limit; r.whole {
		r.recorded = append(r.recorded, p[:n]...)
		a.at += n
	} else {
		r.recorded, a.at = nil, 0
	}
	if n > 0 {
		r.moved()
	}
	return n, err
}
