package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// window is what the server may send before it is allowed more.
	window = 1 << 30
	// prefix is how long what gRPC puts before a message is: a byte for compression, four for the length.
	prefix = 5
	// streamID is the stream; a call has its connection for itself.
	streamID = 1
	// kept is how large a buffer a call keeps for itself.
	kept = 64 << 10
)

// large are buffers for messages that are larger: every proxy receives a few while it becomes warm.
var large sync.Pool // of *[]byte

// call is one gRPC call, on an HTTP/2 connection of its own, that one goroutine reads and writes. grpc-go's client has
// four goroutines for one, and a thousand of them on one core would take longer than the server that is measured.
type call struct {
	conn     net.Conn
	framer   *http2.Framer
	accepted func() // called when the server's headers come

	data []byte // received; message is what receive returned of it
	took int    // how much of data is done with
	got  uint32 // received since the server was last allowed more

	waiting                        []byte // to be sent when the windows allow it
	connWindow, callWindow, newest int64  // what may be sent; newest is the server's SETTINGS_INITIAL_WINDOW_SIZE
}

// begin sends what begins the call. The server answers as it likes.
func begin(conn net.Conn, accepted func()) (*call, error) {
	c := &call{
		conn: conn, accepted: accepted, framer: http2.NewFramer(conn, bufio.NewReaderSize(conn, 4<<10)),
		connWindow: 65_535, callWindow: 65_535, newest: 65_535,
	}
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName},
		{Name: ":authority", Value: conn.RemoteAddr().String()},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		if err := encoder.WriteField(field); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		return nil, err
	}
	if err := c.framer.WriteWindowUpdate(0, window); err != nil {
		return nil, err
	}
	return c, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: headers.Bytes(), EndHeaders: true})
}

// send sends a message, or keeps what the windows do not allow yet until receive was told that they do.
func (c *call) send(message []byte) error {
	c.waiting = append(c.waiting, 0)
	c.waiting = binary.BigEndian.AppendUint32(c.waiting, uint32(len(message)))
	c.waiting = append(c.waiting, message...)
	return c.flush()
}

func (c *call) flush() error {
	for {
		n := min(int64(len(c.waiting)), c.connWindow, c.callWindow, 16<<10)
		if n <= 0 {
			return nil
		}
		if err := c.framer.WriteData(streamID, false, c.waiting[:n]); err != nil {
			return err
		}
		c.waiting = append(c.waiting[:0], c.waiting[n:]...)
		c.connWindow, c.callWindow = c.connWindow-n, c.callWindow-n
	}
}

// receive returns the next message, which is valid until the next call of it.
func (c *call) receive() ([]byte, error) {
	if c.data = append(c.data[:0], c.data[c.took:]...); len(c.data) == 0 && cap(c.data) > kept {
		used := c.data
		large.Put(&used)
		c.data = nil
	}
	c.took = 0
	for {
		if len(c.data) >= prefix {
			end := prefix + int(binary.BigEndian.Uint32(c.data[1:]))
			if len(c.data) >= end {
				c.took = end
				return c.data[prefix:end], nil
			}
			c.grow(end)
		}
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		if err := c.take(frame); err != nil {
			return nil, err
		}
	}
}

// grow makes room for n bytes in all.
func (c *call) grow(n int) {
	if n <= cap(c.data) {
		return
	}
	if used, ok := large.Get().(*[]byte); ok && cap(*used) >= n {
		c.data = append(*used, c.data...)
		return
	}
	c.data = append(make([]byte, 0, max(n, kept)), c.data...)
}

func (c *call) take(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.DataFrame:
		c.data = append(c.data, f.Data()...)
		return c.allow(f.Length)
	case *http2.MetaHeadersFrame:
		if f.StreamEnded() {
			return fmt.Errorf("the call ended: %v", f.Fields)
		}
		c.accepted()
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == streamID {
			c.callWindow += int64(f.Increment)
		} else {
			c.connWindow += int64(f.Increment)
		}
		return c.flush()
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the call was reset: %v", f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server goes away: %v %s", f.ErrCode, f.DebugData())
	}
	return nil
}

// allow gives back to the server what was received.
func (c *call) allow(n uint32) error {
	if c.got += n; c.got < window/2 {
		return nil
	}
	if err := c.framer.WriteWindowUpdate(0, c.got); err != nil {
		return err
	}
	err := c.framer.WriteWindowUpdate(streamID, c.got)
	c.got = 0
	return err
}

func (c *call) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if size, ok := f.Value(http2.SettingInitialWindowSize); ok {
		c.callWindow += int64(size) - c.newest
		c.newest = int64(size)
	}
	if err := c.framer.WriteSettingsAck(); err != nil {
		return err
	}
	return c.flush()
}
