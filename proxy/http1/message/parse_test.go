package message

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
)

// scan finds the end of a head in pieces of step bytes.
func scan(in []byte, step int) (n int, err error) {
	var s Scan
	for at := 0; n == 0 && err == nil && at < len(in); {
		at = min(at+step, len(in))
		n, err = s.End(in[:at])
	}
	return n, err
}

func TestScanIsBlindToPieces(t *testing.T) {
	for in, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest": 27, "GET / HTTP/1.1\r\nHost: a\r\n": 0, "\r\n\r\n": 4, "": 0,
		"GET / HTTP/1.1\n": -1, "\n": -1, "a\r\n\n": -1,
	} {
		for step := 1; step < 9; step++ {
			n, err := scan([]byte(in), step)
			if n != max(want, 0) || (err != nil) != (want < 0) {
				t.Errorf("%q by %d: %d %v, want %d", in, step, n, err, want)
			}
		}
	}
}

// Whatever head is accepted, net/http reads as the same, and reads what is written of it as the same again.
func FuzzHead(f *testing.F) {
	f.Add([]byte("GET /a/../b?c HTTP/1.1\r\nHost: a:80\r\nConnection: close, x\r\nX: 1\r\nY: 2\r\n\r\n"))
	f.Add([]byte("POST http://a/ HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: [::1]\r\nUpgrade: x\r\nConnection: upgrade\r\nTe: trailers\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := scan(in, max(len(in), 1))
		if slow, slowErr := scan(in, 1); slow != n || (err == nil) != (slowErr == nil) {
			t.Fatalf("depends on pieces: %d %v, %d %v", n, err, slow, slowErr)
		}
		var r Request
		if n == 0 {
			return
		}
		if _, err := ParseRequest(&r, in[:n], nil); err != nil {
			return
		}
		got, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in[:n])))
		if err != nil {
			t.Fatalf("net/http refuses: %v", err)
		}
		if got.Method != r.Method || got.RequestURI != r.Target || got.ContentLength != r.Length() && r.Length() != Chunked {
			t.Fatalf("we read %+v, net/http %+v", r, got)
		}
		sent, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(AppendRequest(nil, &r, &Edit{}))))
		if err != nil {
			t.Fatalf("net/http refuses what is sent: %v", err)
		}
		if sent.Method != r.Method || sent.RequestURI != r.Path || sent.Host != r.Host {
			t.Fatalf("we send %+v, net/http reads %+v", r, sent)
		}
	})
}

func TestSendable(t *testing.T) {
	for _, c := range []struct {
		method, target, host string
		want                 bool
	}{
		{"GET", "/a?b", "a:80", true}, {"", "/", "a", false}, {"G T", "/", "a", false}, {"GET", "/ ", "a", false},
		{"GET", "/\x7f", "a", false}, {"GET", "/", "", false}, {"GET", "/", "a/b", false}, {"GET", "/", "[::1]:80", true},
	} {
		if Sendable(c.method, c.target, c.host) != c.want {
			t.Errorf("%q %q %q: want %v", c.method, c.target, c.host, c.want)
		}
	}
}
