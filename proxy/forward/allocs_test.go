package forward_test

import (
	"bufio"
	"bytes"
	"net"
	"testing"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// answers replies to every head with the same response and allocates nothing.
func answers(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		response, buf := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"), make([]byte, 4<<10)
		for n := 0; ; {
			m, err := c.Read(buf[n:])
			if err != nil {
				return
			}
			if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				n = 0
				if _, err := c.Write(response); err != nil {
					return
				}
			}
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// exchange returns a function that makes one request over a kept connection through the whole path.
func exchange(t testing.TB) func() {
	p := newProxy(t, []string{answers(t)}, func(_ *config.Config, f *config.Forward, _ *config.Settings) {
		f.Retry = &config.RetryPolicy{On: config.RetryConnectFailure, Attempts: 2, OtherHost: true}
	})
	p.records.silent = true
	conn := dial(t, p.address)
	request, reader := []byte("GET /items?id=1 HTTP/1.1\r\nHost: up\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"), bufio.NewReader(conn)
	return func() {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		for {
			line, err := reader.ReadSlice('\n')
			if err != nil {
				t.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := reader.Discard(5); err != nil {
			t.Fatal(err)
		}
	}
}

// The whole path of a request, from the client's bytes to the record, allocates nothing once a connection is warm.
func TestForwardingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	one := exchange(t)
	for range 100 {
		one()
	}
	if n := testing.AllocsPerRun(2000, one); n > 0 {
		t.Errorf("%v allocations per request", n)
	}
}

func BenchmarkForward(b *testing.B) {
	one := exchange(b)
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
}
