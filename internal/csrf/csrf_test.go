package csrf

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestProtect(t *testing.T) {
	for _, c := range []struct {
		method, host string
		header       http.Header
		want         int
	}{
		{"POST", "127.0.0.1:15000", nil, 200}, {"POST", "[::1]:15000", nil, 200}, {"POST", "localhost:15000", nil, 200}, {"POST", "LOCALHOST", nil, 200},
		{"POST", "::1", nil, 200}, {"POST", "10.0.0.7", nil, 200},
		{"POST", "evil.example:15000", nil, 403}, {"POST", "localhost.evil.example", nil, 403}, {"POST", "127.0.0.1.evil.example:80", nil, 403}, {"POST", "", nil, 403},
		{"GET", "sidecar.example:15000", nil, 200},
		{"POST", "127.0.0.1:15000", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"POST", "127.0.0.1:15000", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"POST", "evil.example", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 403},
	} {
		handler := Protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		w, r := httptest.NewRecorder(), httptest.NewRequest(c.method, "/", nil)
		r.Host = c.host
		for name, values := range c.header {
			r.Header[name] = values
		}
		if handler.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%s %q %v: %d, want %d", c.method, c.host, c.header, w.Code, c.want)
		}
	}
}
