package splice

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pattern is size bytes that no other seed has.
func pattern(seed byte, size int) []byte {
	out := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(out)
	return out
}

// What is on its way when a loop takes the pair is neither lost nor sent twice: here the upstream does not read, so there are
// bytes in a pipe, when what it sends itself makes the pair one that has moved much.
func TestLiftWhileBlocked(t *testing.T) {
	const size = 32 << 20 // more than the sockets take
	f := start(t, 0, kind{bare, func() *Pipes {
		pipes := NewPipes(4)
		pipes.liftAfter = size / 2
		return pipes
	}})
	up, down := pattern(1, size), pattern(2, size)
	var writers sync.WaitGroup
	defer writers.Wait()
	writers.Go(func() { _, _ = f.client.Write(up); _ = f.client.CloseWrite() })
	for before := int64(-1); f.sent.Load() != before; time.Sleep(50 * time.Millisecond) { // until nothing more fits
		before = f.sent.Load()
	}
	if f.sent.Load() >= size/2 {
		t.Fatal("the sockets take all: nothing is blocked")
	}
	writers.Go(func() { _, _ = f.upstream.Write(down); _ = f.upstream.CloseWrite() })
	if got, err := io.ReadAll(f.client); err != nil || !bytes.Equal(got, down) {
		t.Fatalf("%d of %d bytes down, or others: %v", len(got), size, err)
	}
	if got, err := io.ReadAll(f.upstream); err != nil || !bytes.Equal(got, up) {
		t.Fatalf("%d of %d bytes up, or others: %v", len(got), size, err)
	}
	f.wait(t, Closed, size, size)
}

// Many pairs share the loops, each with its own pace, amount and end; each gets what was sent to it, and no other's.
func TestPairsShareLoops(t *testing.T) {
	pipes := eager()
	defer pipes.Close()
	var all sync.WaitGroup
	defer func() {
		all.Wait()
		for _, l := range pipes.loops.all {
			if len(l.pairs) != 0 {
				t.Errorf("%d pairs that have ended are not forgotten", len(l.pairs))
			}
		}
	}()
	for seed := range byte(40) {
		client, a := tcpPair(t)
		b, upstream := tcpPair(t)
		ctx, cancel := context.WithCancel(t.Context())
		random := rand.New(rand.NewPCG(7, uint64(seed)))
		amount := [2]int{random.IntN(3 << 20), random.IntN(3 << 20)}
		end := []Reason{Closed, Closed, Reset, Cancelled}[random.IntN(4)]
		_ = a.SetReadBuffer(1 << (16 + random.IntN(4)))
		_ = b.SetWriteBuffer(1 << (16 + random.IntN(4)))
		all.Go(func() {
			reason, _ := Run(ctx, a, b, Config{Pipes: pipes, IdleTimeout: time.Minute})
			if reason != end {
				t.Errorf("pair %d: %s, want %s", seed, reason, end)
			}
		})
		all.Go(func() {
			defer cancel()
			var ways sync.WaitGroup
			for i, ends := range [][2]*net.TCPConn{{client, upstream}, {upstream, client}} {
				sent := pattern(2*seed+byte(i), amount[i]+1)
				ways.Go(func() { _, _ = ends[0].Write(sent) })
				ways.Go(func() {
					got := make([]byte, len(sent))
					if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, sent) {
						t.Errorf("pair %d: %d bytes, or others: %v", seed, len(sent), err)
					}
				})
			}
			ways.Wait()
			switch end {
			case Closed:
				_, _ = client.CloseWrite(), upstream.CloseWrite()
				_, _ = io.Copy(io.Discard, client)
				_, _ = io.Copy(io.Discard, upstream)
			case Reset:
				_ = client.SetLinger(0)
				_ = client.Close()
				if _, err := io.Copy(io.Discard, upstream); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("pair %d: upstream saw %v", seed, err)
				}
			case Cancelled:
				cancel()
			}
		})
	}
}

// One that always has more does not keep the others waiting.
func TestBulkLetsOthersPass(t *testing.T) {
	pipes := eager()
	defer pipes.Close()
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 8 { // on every loop there is
		client, a := tcpPair(t)
		b, upstream := tcpPair(t)
		all.Go(func() { _, _ = Run(ctx, a, b, Config{Pipes: pipes}) })
		all.Go(func() { _, _ = io.Copy(client, endless{}) })
		all.Go(func() { _, _ = io.Copy(io.Discard, upstream) })
	}
	client, a := tcpPair(t)
	b, upstream := tcpPair(t)
	all.Go(func() { _, _ = Run(ctx, a, b, Config{Pipes: pipes}) })
	all.Go(func() { _, _ = io.Copy(upstream, upstream) })
	_ = client.SetDeadline(time.Now().Add(time.Minute)) // the test itself keeps every core busy
	for i := range byte(20) {
		got := []byte{0}
		if _, err := client.Write([]byte{i}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, got); err != nil || got[0] != i {
			t.Fatalf("round %d: %v %v", i, got, err)
		}
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A connection that was made here gets keep-alive when a loop takes it: the caller's own has no descriptor any more.
func TestLoopKeepsAlive(t *testing.T) {
	l := listenHere(t, "127.0.0.1:0")
	conn, _, err := Connect(t.Context(), l.Address(), soon(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	client, near := tcpPair(t)
	pipes := eager()
	defer pipes.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = Run(ctx, near, conn, Config{Pipes: pipes}) }()
	defer func() { cancel(); <-done }()
	_, _ = client.Write([]byte("y"))
	if _, err := io.ReadFull(far, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	for deadline := soon(); !keptAlive(t, l.Address().Port()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no keep-alive")
		}
	}
}

// keptAlive tells of the only open socket here that is connected to a port.
func keptAlive(t *testing.T, port uint16) bool {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range names {
		fd, _ := strconv.Atoi(name.Name())
		peer, err := syscall.Getpeername(fd)
		if at, ok := peer.(*syscall.SockaddrInet4); err != nil || !ok || at.Port != int(port) {
			continue
		}
		on, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		return on == 1
	}
	return false
}
