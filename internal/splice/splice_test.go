package splice

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair is two ends of a TCP connection.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// wrapped hides that a connection is TCP's, as TLS does.
type wrapped struct{ net.Conn }

func (w wrapped) CloseWrite() error { return w.Conn.(*net.TCPConn).CloseWrite() }

type fixture struct {
	client, upstream *net.TCPConn
	sent, received   atomic.Int64
	cancel           context.CancelFunc
	done             chan struct{}
	reason           Reason
	err              error
}

// start runs a pair between a client and an upstream.
func start(t *testing.T, idle time.Duration, k kind) *fixture {
	client, a := tcpPair(t)
	b, upstream := tcpPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	f := &fixture{client: client, upstream: upstream, cancel: cancel, done: make(chan struct{})}
	pipes := k.pipes()
	go func() {
		defer close(f.done)
		f.reason, f.err = Run(ctx, k.wrap(a), k.wrap(b), Config{Pipes: pipes, IdleTimeout: idle, Sent: &f.sent, Received: &f.received})
	}()
	t.Cleanup(func() { cancel(); <-f.done; pipes.Close() })
	return f
}

func (f *fixture) wait(t *testing.T, reason Reason, sent, received int64) {
	t.Helper()
	select {
	case <-f.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the pair does not end")
	}
	if f.reason != reason || f.sent.Load() != sent || f.received.Load() != received {
		t.Errorf("got %s (%v) %d %d, want %s %d %d", f.reason, f.err, f.sent.Load(), f.received.Load(), reason, sent, received)
	}
}

// kind is a way in which bytes are moved.
type kind struct {
	wrap  func(net.Conn) net.Conn
	pipes func() *Pipes
}

func bare(c net.Conn) net.Conn { return c }

// eager pipes have a loop take each pair at its first byte.
func eager() *Pipes {
	pipes := NewPipes(4)
	pipes.liftAfter = 1
	return pipes
}

// loopless is what there is when the kernel refuses a loop.
func loopless() *Pipes {
	pipes := eager()
	pipes.loops.once.Do(func() {})
	return pipes
}

func four() *Pipes { return NewPipes(4) }

var kinds = map[string]kind{
	"tcp": {bare, four}, "loop": {bare, eager}, "loopless": {bare, loopless},
	"other": {func(c net.Conn) net.Conn { return wrapped{c} }, four},
}

// Each side may end first; what the other sends afterwards still arrives.
func TestHalfClose(t *testing.T) {
	for name, k := range kinds {
		for _, clientFirst := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				f := start(t, 0, k)
				first, second := f.client, f.upstream
				if !clientFirst {
					first, second = second, first
				}
				_, _ = first.Write([]byte("question"))
				_ = first.CloseWrite()
				if got, err := io.ReadAll(second); err != nil || string(got) != "question" {
					t.Fatalf("got %q %v", got, err)
				}
				_, _ = second.Write([]byte("answer!!"))
				_ = second.CloseWrite()
				if got, err := io.ReadAll(first); err != nil || string(got) != "answer!!" {
					t.Fatalf("got %q %v", got, err)
				}
				f.wait(t, Closed, 8, 8)
			})
		}
	}
}

func TestBulkBothWays(t *testing.T) {
	const size = 64 << 20
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			f := start(t, time.Minute, k)
			var all sync.WaitGroup
			for _, ends := range [][2]*net.TCPConn{{f.client, f.upstream}, {f.upstream, f.client}} {
				var sent, got [sha256.Size]byte
				var both sync.WaitGroup
				both.Go(func() {
					hash := sha256.New()
					source := rand.NewChaCha8([32]byte{1})
					_, _ = io.CopyN(io.MultiWriter(ends[0], hash), source, size)
					_ = ends[0].CloseWrite()
					hash.Sum(sent[:0])
				})
				both.Go(func() {
					hash := sha256.New()
					_, _ = io.Copy(hash, ends[1])
					hash.Sum(got[:0])
				})
				all.Go(func() {
					if both.Wait(); sent != got {
						t.Error("what arrived is not what was sent")
					}
				})
			}
			all.Wait()
			f.wait(t, Closed, size, size)
		})
	}
}

func TestResetTravels(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			f := start(t, 0, k)
			_, _ = f.client.Write([]byte("x"))
			if _, err := io.ReadFull(f.upstream, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			_ = f.client.SetLinger(0)
			_ = f.client.Close()
			_, err := f.upstream.Read(make([]byte, 1))
			if name != "other" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("upstream got %v, want a reset", err)
			}
			f.wait(t, Reset, 1, 0)
			if f.err == nil {
				t.Error("want the reason of the reset")
			}
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			const idle = 150 * time.Millisecond
			f := start(t, idle, k)
			begin := time.Now()
			for range 6 { // one direction keeps both alive
				time.Sleep(idle / 3)
				if _, err := f.upstream.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			f.wait(t, Idle, 0, 6)
			if took := time.Since(begin); took < 2*idle {
				t.Errorf("ended after %v though bytes moved", took)
			}
		})
	}
}

// A peer that reads no more holds the pair no longer than the idle timeout.
func TestIdleTimeoutWhileBlocked(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			f := start(t, 200*time.Millisecond, k)
			_ = f.upstream.CloseWrite()
			_ = f.client.SetWriteDeadline(time.Now().Add(20 * time.Second))
			if _, err := f.client.Write(make([]byte, 64<<20)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want the connection closed", err)
			}
			<-f.done
			if f.reason != Idle {
				t.Errorf("got %s", f.reason)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			f := start(t, time.Hour, k)
			_, _ = f.client.Write([]byte("x"))
			if _, err := io.ReadFull(f.upstream, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			f.cancel()
			f.wait(t, Cancelled, 1, 0)
			if _, err := f.client.Read(make([]byte, 1)); err == nil {
				t.Error("the client's connection is open")
			}
		})
	}
}

// An idle pair holds no pipe: a gateway with many quiet connections needs two descriptors for each, not six.
func TestIdlePairsHoldNoPipes(t *testing.T) {
	for name, pipes := range map[string]*Pipes{"tcp": NewPipes(2), "loop": eager()} {
		t.Run(name, func(t *testing.T) { testIdlePairs(t, pipes) })
	}
}

func testIdlePairs(t *testing.T, pipes *Pipes) {
	const n = 20
	defer pipes.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var pairs sync.WaitGroup
	defer pairs.Wait()
	defer cancel()
	before := openFiles(t)
	for range n {
		client, a := tcpPair(t)
		b, upstream := tcpPair(t)
		pairs.Go(func() { _, _ = Run(ctx, a, b, Config{Pipes: pipes}) })
		message := bytes.Repeat([]byte("x"), 1000)
		_, _ = client.Write(message)
		if _, err := io.ReadFull(upstream, message); err != nil {
			t.Fatal(err)
		}
	}
	// The last bytes may have arrived before the last pipe is back. A loop has two descriptors.
	most := 4*n + 8 + runtime.GOMAXPROCS(0)
	for deadline := time.Now().Add(5 * time.Second); openFiles(t)-before > most; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors for %d pairs and their peers", openFiles(t)-before, n)
		}
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

func BenchmarkRun(b *testing.B) {
	for name, k := range kinds {
		b.Run(name, func(b *testing.B) {
			client, x := tcpPair(b)
			y, upstream := tcpPair(b)
			pipes := k.pipes()
			defer pipes.Close()
			var running sync.WaitGroup
			running.Go(func() { _, _ = Run(b.Context(), k.wrap(x), k.wrap(y), Config{Pipes: pipes, IdleTimeout: time.Hour}) })
			running.Go(func() { _, _ = io.Copy(io.Discard, upstream); upstream.Close() })
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(buf)))
			for range b.N {
				_, _ = client.Write(buf)
			}
			client.Close()
			running.Wait()
		})
	}
}
