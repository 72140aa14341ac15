package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func listenHere(t *testing.T, at string) *Listener {
	t.Helper()
	l, err := Listen(netip.MustParseAddrPort(at))
	if err != nil {
		t.Skip(at, err) // no IPv6
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// What is copied through a Socket arrives, its end as an end, over both families.
func TestSocketCarries(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			l := listenHere(t, at)
			to := l.Address()
			conn, n, err := Connect(t.Context(), to, soon(), []byte("hello "))
			if err != nil || n != 6 || conn.RemoteAddr().String() != to.String() {
				t.Fatal(n, err)
			}
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			client, near := tcpPair(t)
			pipes := NewPipes(2)
			defer pipes.Close()
			done := make(chan Reason, 1)
			go func() {
				reason, _ := Run(t.Context(), near, conn, Config{Pipes: pipes})
				done <- reason
			}()
			_, _ = client.Write([]byte("world"))
			_ = client.CloseWrite()
			if got, err := io.ReadAll(far); err != nil || string(got) != "hello world" {
				t.Errorf("got %q %v", got, err)
			}
			_, _ = far.Write([]byte("bye"))
			_ = far.Close()
			if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
				t.Errorf("got %q %v", got, err)
			}
			if reason := <-done; reason != Closed {
				t.Error(reason)
			}
		})
	}
}

// A reset of the client is a reset of the upstream, not an end.
func TestSocketPassesAReset(t *testing.T) {
	l := listenHere(t, "127.0.0.1:0")
	conn, _, err := Connect(t.Context(), l.Address(), soon(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	far, _ := l.Accept()
	defer far.Close()
	client, near := tcpPair(t)
	_ = client.SetLinger(0)
	_ = client.Close()
	pipes := NewPipes(2)
	defer pipes.Close()
	if reason, _ := Run(t.Context(), near, conn, Config{Pipes: pipes}); reason != Reset {
		t.Error(reason)
	}
	if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("upstream saw %v", err)
	}
}

// What was not reached was sent nothing, and the caller may try another.
func TestConnectFails(t *testing.T) {
	l := listenHere(t, "127.0.0.1:0")
	refusing := l.Address()
	l.Close()
	if _, n, err := Connect(t.Context(), refusing, soon(), []byte("x")); n != 0 || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused: %d, %v", n, err)
	}
	silent := fullBacklog(t)
	if _, n, err := Connect(t.Context(), silent, time.Now().Add(20*time.Millisecond), []byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %d, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, n, err := Connect(ctx, silent, soon(), []byte("x")); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %d, %v", n, err)
	}
}

// fullBacklog is an address whose SYNs are dropped.
func fullBacklog(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, _ := syscall.Getsockname(fd)
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 3 {
		if conn, err := net.DialTimeout("tcp", at.String(), 50*time.Millisecond); err == nil {
			t.Cleanup(func() { conn.Close() })
		}
	}
	return at
}

// Connections of a listener inherit its options; those that connect get keep-alive when they are told.
func TestOptions(t *testing.T) {
	l := listenHere(t, "127.0.0.1:0")
	conn, _, err := Connect(t.Context(), l.Address(), soon(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, _ := l.Accept()
	defer accepted.Close()
	if err := conn.KeepAlive(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]syscall.Conn{"accepted": accepted, "connected": conn} {
		raw, _ := c.SyscallConn()
		_ = raw.Control(func(fd uintptr) {
			on, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
			idle, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
			noDelay, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
			if on != 1 || idle != 15 || noDelay != 1 {
				t.Errorf("%s: keep-alive %d, idle %d, no delay %d", name, on, idle, noDelay)
			}
		})
	}
}

func TestListener(t *testing.T) {
	l := listenHere(t, "127.0.0.1:0")
	if _, err := Listen(l.Address()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the same address again: %v", err)
	}
	client, err := net.Dial("tcp", l.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil || accepted.Remote().String() != client.LocalAddr().String() {
		t.Fatalf("accepted %v from %v, want %v", err, accepted.Remote(), client.LocalAddr())
	}
	defer accepted.Close()
	_ = accepted.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after the deadline: %v", err)
	}
	_ = l.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("accept after the deadline: %v", err)
	}
	_ = l.SetDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() { _, err := l.Accept(); ended <- err }()
	time.AfterFunc(10*time.Millisecond, func() { _ = l.Close() })
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept of a listener that is closed: %v", err)
	}
}

// "::" takes both families, an IPv4 client under its own address.
func TestListenerTakesBothFamilies(t *testing.T) {
	l := listenHere(t, "[::]:0")
	client, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Address().Port()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil || accepted.Remote().String() != client.LocalAddr().String() {
		t.Fatalf("%v %v", accepted, err)
	}
	accepted.Close()
}
