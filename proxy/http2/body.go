package http2

import (
	"errors"
	"io"
	"sync"
)

var errAbandoned = errors.New("attempt is over")

// replay is a request's body that several attempts can send, one after the other, as long as it has not grown
// beyond its limit. The previous attempt's reader may still be blocked in a read when the next begins: what it reads
// is recorded, and so not lost to the next.
type replay struct {
	limit int

	mu       sync.Mutex // held while the source is read
	source   io.Reader
	recorded []byte // from the body's first byte, if whole
	whole    bool   // recorded has everything that was read
	read     int64
	err      error // of the source, io.EOF included
	attempt  int
}

func newReplay(source io.Reader, limit int) *replay {
	return &replay{source: source, limit: limit, whole: true}
}

// reader begins an attempt; earlier readers fail from now on.
func (r *replay) reader() io.ReadCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempt++
	return &attemptBody{body: r, attempt: r.attempt}
}

// again tells whether another attempt can have the whole body.
func (r *replay) again() bool {
	if !r.mu.TryLock() {
		return false // the last attempt waits for the client: a retry would wait behind it
	}
	defer r.mu.Unlock()
	return r.whole
}

// received tells whether the client has sent all of it.
func (r *replay) received() bool {
	if !r.mu.TryLock() {
		return false // somebody waits for the client
	}
	defer r.mu.Unlock()
	return r.err != nil
}

// bytes is how much the client has sent.
func (r *replay) bytes() int64 {
	if !r.mu.TryLock() {
		return 0
	}
	defer r.mu.Unlock()
	return r.read
}

type attemptBody struct {
	body    *replay
	attempt int
	at      int // in recorded
}

func (a *attemptBody) Close() error { return nil }

func (a *attemptBody) Read(p []byte) (int, error) {
	r := a.body
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case a.attempt != r.attempt:
		return 0, errAbandoned
	case a.at < len(r.recorded):
		n := copy(p, r.recorded[a.at:])
		a.at += n
		return n, nil
	case r.err != nil:
		return 0, r.err
	}
	n, err := r.source.Read(p)
	r.read += int64(n)
	r.err = err
	if r.whole = r.whole && len(r.recorded)+n <= r.limit; r.whole {
		r.recorded = append(r.recorded, p[:n]...)
		a.at += n
	} else {
		r.recorded, a.at = nil, 0
	}
	return n, err
}
