package csrf

import (
	"bufio"
	"context"
	"fmt"
	"net"
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

// Over loopback, a name that is not the machine's is answered to nobody, whatever it asks.
func TestLoopback(t *testing.T) {
	server := httptest.NewServer(Loopback(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	for host, want := range map[string]int{
		"": 200, "localhost:8080": 200, "127.20.1.1:8080": 200, "[::1]": 200, "evil.example:8080": 403, "localhost.evil.example": 403,
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n")
		if host != "" {
			fmt.Fprintf(conn, "Host: %s\r\n", host)
		}
		fmt.Fprint(conn, "\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != want {
			t.Errorf("%q: %v, %v, want %d", host, response, err, want)
		}
		conn.Close()
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://dashboard.example/", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 8080})))
	if Loopback(http.NotFoundHandler()).ServeHTTP(w, r); w.Code != 404 {
		t.Errorf("at another address names are answered: %d", w.Code)
	}
}
