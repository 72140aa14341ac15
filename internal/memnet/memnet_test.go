package memnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a connection between hosts a and b.
func pair(t *testing.T, n *Network) (client, server net.Conn) {
	t.Helper()
	l, err := n.Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	client, err = n.From("a")(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestCopyAndHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t, new(Network))
		data := make([]byte, 3*buffered)
		_, _ = rand.Read(data)
		go func() {
			_, _ = client.Write(data)
			_ = client.(*conn).CloseWrite()
		}()
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
		if _, err := server.Write([]byte("back")); err != nil {
			t.Errorf("write after the peer's half-close: %v", err)
		}
		_ = server.Close()
		if got, err := io.ReadAll(client); string(got) != "back" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after half-close: %v", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t, new(Network))
		start := time.Now()
		_ = server.SetReadDeadline(start.Add(time.Second))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		go func() { // a deadline wakes who already waits
			time.Sleep(time.Second)
			_ = client.SetWriteDeadline(time.Now())
		}()
		if n, err := client.Write(make([]byte, buffered+1)); n != buffered || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v", n, err)
		}
		_ = server.SetReadDeadline(time.Time{})
		if n, err := server.Read(make([]byte, 10)); n != 10 || err != nil {
			t.Errorf("read: %d, %v", n, err)
		}
	})
}

func TestDelayAndCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Network)
		n.SetDelay(40 * time.Millisecond)
		start := time.Now()
		client, server := pair(t, n)
		if took := time.Since(start); took != 80*time.Millisecond {
			t.Errorf("dial took %v, a round trip is 80 ms", took)
		}
		receive := func() time.Duration {
			start := time.Now()
			_, _ = client.Write([]byte("x"))
			if _, err := server.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if took := receive(); took != 40*time.Millisecond {
			t.Errorf("a byte took %v", took)
		}
		n.Cut("a", "b")
		time.AfterFunc(time.Minute, func() { n.Heal("a", "b") })
		if took := receive(); took != time.Minute {
			t.Errorf("a byte took %v over a network that was cut for a minute", took)
		}
		n.Cut("a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.From("a")(ctx, "b:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial over a cut: %v", err)
		}
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Network)
		client, server := pair(t, n)
		time.AfterFunc(time.Second, func() { n.Kill("b") })
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client: %v", err)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("server: %v", err)
		}
		if _, err := n.Dial(t.Context(), "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		if _, err := n.Listen("b:1"); err != nil {
			t.Errorf("listen again: %v", err)
		}
		if _, err := n.Listen("b:1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen twice: %v", err)
		}
	})
}

func TestCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t, new(Network))
		time.AfterFunc(time.Second, func() { _ = server.Close() })
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("peer: %v", err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("peer's write: %v", err)
		}
	})
}
