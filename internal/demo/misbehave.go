package demo

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// What the shop does badly when it is asked to, so that timeouts and retries have something to do.

// maxWait bounds /slow.
const maxWait = 10 * time.Second

// wait answers /slow?ms=N late by N milliseconds.
func wait(r *http.Request) {
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	select {
	case <-time.After(min(time.Duration(ms)*time.Millisecond, maxWait)):
	case <-r.Context().Done():
	}
}

// maxKeys bounds what flaky remembers.
const maxKeys = 10_000

// flaky fails /flaky?key=K&fail=N the first N times that a key is asked.
type flaky struct {
	mu   sync.Mutex
	seen map[string]int // guarded by mu
}

func (f *flaky) fails(r *http.Request) bool {
	key := r.URL.Query().Get("key")
	fail, _ := strconv.Atoi(r.URL.Query().Get("fail"))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil || len(f.seen) >= maxKeys {
		f.seen = map[string]int{}
	}
	f.seen[key]++
	return f.seen[key] <= fail
}
