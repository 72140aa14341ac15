package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wireClient speaks frames, and so decides itself what it has seen.
type wireClient struct {
	t      *testing.T
	conn   net.Conn
	framer *http2.Framer
	goAway []uint32       // last streams of those read
	done   map[uint32]int // stream -> status
}

func dialWire(t *testing.T, b *bench) *wireClient {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := &wireClient{t: t, conn: conn, framer: http2.NewFramer(conn, conn), done: map[uint32]int{}}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = c.framer.WriteSettings()
	return c
}

func (c *wireClient) request(stream uint32) {
	c.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "catalog"}, {":path", "/"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		c.t.Fatalf("stream %d: %v", stream, err)
	}
}

// read reads until a stream has ended; 0: until the connection has.
func (c *wireClient) read(stream uint32) error {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			c.goAway = append(c.goAway, f.LastStreamID)
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status == "200" {
				c.done[f.StreamID] = 200
			}
		case *http2.RSTStreamFrame:
			c.t.Errorf("stream %d: reset %v", f.StreamID, f.ErrCode)
		}
		if h := f.Header(); stream != 0 && h.StreamID == stream && h.Flags.Has(http2.FlagDataEndStream) {
			return nil
		}
	}
}

// What a client sends before it has heard of a drain is served, on a connection that was idle and on one that was
// not; then it is told the last stream, and the connection ends.
func TestDrainServesWhoHasNotHeard(t *testing.T) {
	for _, busy := range []bool{false, true} {
		release := make(chan struct{})
		released := sync.OnceFunc(func() { close(release) })
		t.Cleanup(released)
		began := make(chan struct{}, 10)
		b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			<-release
			_, _ = io.WriteString(w, "done")
		}), nil)
		b.server.config.GoAwayGrace = 200 * time.Millisecond
		c := dialWire(t, b)
		c.request(1)
		await(t, began)
		if !busy {
			released()
			if err := c.read(1); err != nil {
				t.Fatal(err)
			}
		}
		b.server.Drain(t.Context())
		c.request(3) // the GOAWAY has been sent but not read
		await(t, began)
		if busy {
			released()
		}
		if err := c.read(0); !errors.Is(err, io.EOF) {
			t.Errorf("busy %v: %v", busy, err)
		}
		if c.done[1] != 200 || c.done[3] != 200 {
			t.Errorf("busy %v: served %v", busy, c.done)
		}
		if len(c.goAway) != 2 || c.goAway[0] != math.MaxInt32 || c.goAway[1] != 3 {
			t.Errorf("busy %v: last streams %v", busy, c.goAway)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		b.server.Wait(ctx)
		cancel()
	}
}

func await(t *testing.T, began <-chan struct{}) {
	t.Helper()
	select {
	case <-began:
	case <-time.After(5 * time.Second):
		t.Error("the request does not reach the application")
	}
}

// A connection whose handshake a drain overtakes is served, and ends.
func TestDrainServesTheLateComer(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil)
	b.server.config.GoAwayGrace = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b.server.Drain(ctx)
	b.server.Wait(ctx)
	c := dialWire(t, b)
	c.request(1)
	if err := c.read(0); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if c.done[1] != 200 || len(c.goAway) != 2 || c.goAway[0] != math.MaxInt32 || c.goAway[1] != 1 {
		t.Errorf("served %v, last streams %v", c.done, c.goAway)
	}
}

// What is cut when ctx ends is also who comes late and stays.
func TestDrainEndsWithItsContext(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil)
	ctx, cancel := context.WithCancel(t.Context())
	b.server.Drain(ctx)
	c := dialWire(t, b)
	cancel()
	if err := c.read(0); err == nil {
		t.Error("the connection goes on")
	}
}

func FuzzFramesAreFollowed(f *testing.F) {
	f.Add([]byte{3, 0, 200}, uint8(5))
	f.Fuzz(func(t *testing.T, sizes []byte, step uint8) {
		var stream []byte
		ends := map[int]bool{}
		for _, size := range sizes {
			stream = append(stream, 0, 0, size, 0, 0, 0, 0, 0, 1)
			stream = append(stream, make([]byte, size)...)
			ends[len(stream)] = true
		}
		c := &closing{}
		for at := 0; at < len(stream); {
			n := min(int(step)+1, len(stream)-at)
			c.follow(stream[at : at+n])
			at += n
			if between := c.have == 0 && c.left == 0; between != ends[at] {
				t.Fatalf("at %d: between frames %v, want %v", at, between, ends[at])
			}
		}
	})
}
