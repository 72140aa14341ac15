package demo

import (
	"net/http"
	"strconv"
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

// flaky tells whether to fail the first N attempts of a request for /flaky?fail=N; proxies count them in a header.
func flaky(r *http.Request) bool {
	fail, _ := strconv.Atoi(r.URL.Query().Get("fail"))
	attempt, err := strconv.Atoi(r.Header.Get("X-Envoy-Attempt-Count"))
	if err != nil {
		attempt = 1
	}
	return attempt <= fail
}
