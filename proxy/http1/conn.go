package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

const (
	smallBuffer = 4 << 10  // of a warm connection
	largeBuffer = 64 << 10 // while a long body passes
	coalesce    = 16 << 10 // up to here bytes are copied together into one write; one TLS record
)

// Buffers lends read buffers to connections. The zero value is ready; share one per process part.
type Buffers struct{ small, large sync.Pool }

func (p *Buffers) get(size int) []byte {
	var kept any
	switch size {
	case smallBuffer:
		kept = p.small.Get()
	case largeBuffer:
		kept = p.large.Get()
	}
	if b, ok := kept.(*[]byte); ok {
		return *b
	}
	return make([]byte, size)
}

func (p *Buffers) put(b []byte) {
	switch len(b) {
	case smallBuffer:
		p.small.Put(&b)
	case largeBuffer:
		p.large.Put(&b)
	}
}

// Conn is a connection with a read buffer. One goroutine may read while another writes.
type Conn struct {
	net.Conn
	buffers *Buffers
	maxHead int

	buf  []byte // bytes [r:w] are unread
	r, w int
	keep int    // bytes before it belong to the head and stay
	full bool   // the last read took all the space
	held []byte // the head's buffer, while buf is another one

	request  message.Request
	response message.Response
	body     Body
	path     []byte // scratch of Normalize

	out    []byte // to be written
	broken error  // of writing; once set, the connection is lost
	// sink is flushed before a read that may block; wait is asked when a read timed out.
	sink *Conn
	wait waiter

	readBy, writeBy time.Time // deadlines that are set
	headTimeout     time.Duration
	fills           int       // reads that brought bytes
	idleSince, born time.Time // of a pooled connection
	// Uses counts the requests sent; Peer is what the dialler wants to remember of the other side.
	Uses int
	Peer string
	// Closed, if set, is called once by Release.
	Closed func()
	lost   bool // somebody may use the buffers still
}

// waiter decides at a read deadline: true means read on, it has set another deadline.
type waiter interface{ timedOut(*Conn) bool }

// NewConn returns a Conn over nc. maxHead is the limit of a head in bytes; 0 means [message.DefaultMaxHead].
func NewConn(nc net.Conn, buffers *Buffers, maxHead int) *Conn {
	if maxHead == 0 {
		maxHead = message.DefaultMaxHead
	}
	return &Conn{Conn: nc, buffers: buffers, maxHead: maxHead, buf: buffers.get(smallBuffer), born: time.Now()}
}

// Age is how long ago the Conn was made.
func (c *Conn) Age(now time.Time) time.Duration { return now.Sub(c.born) }

// Response returns the response's head that was read last.
func (c *Conn) Response() *message.Response { return &c.response }

// Release closes the connection and gives its buffers back. Nothing read from it may be used afterwards.
func (c *Conn) Release() {
	c.Conn.Close()
	if !c.lost {
		c.giveBack()
	}
	if c.Closed != nil {
		c.Closed()
		c.Closed = nil
	}
}

func (c *Conn) giveBack() {
	if c.held != nil {
		c.buffers.put(c.held)
	}
	if c.buf != nil {
		c.buffers.put(c.buf)
	}
	c.buf, c.held = nil, nil
}

// buffered returns the bytes that were read and not used.
func (c *Conn) buffered() []byte { return c.buf[c.r:c.w] }

// next ends the current message: what it used goes, what follows it stays.
func (c *Conn) next() {
	if c.held != nil || len(c.buf) > 4*smallBuffer {
		c.shrink()
	}
	c.w = copy(c.buf, c.buf[c.r:c.w])
	c.r, c.keep = 0, 0
}

// shrink returns to a small buffer if the unread bytes fit.
func (c *Conn) shrink() {
	if c.w-c.r > smallBuffer {
		return
	}
	small := c.held
	if len(small) != smallBuffer {
		small = c.buffers.get(smallBuffer)
	}
	c.w = copy(small, c.buf[c.r:c.w])
	c.r = 0
	c.buffers.put(c.buf)
	c.buf, c.held = small, nil
}

// room makes space to read into, without moving the head. A read that fills a small buffer with a body makes it large.
func (c *Conn) room() {
	if c.r == c.w {
		c.r, c.w = c.keep, c.keep
	}
	if c.full && c.keep > 0 && len(c.buf) < largeBuffer {
		c.grow()
		return
	}
	if len(c.buf)-c.w >= smallBuffer/2 {
		return
	}
	if c.r > c.keep && c.w-c.r < c.r-c.keep {
		c.w = c.keep + copy(c.buf[c.keep:], c.buf[c.r:c.w])
		c.r = c.keep
	}
	if len(c.buf)-c.w < smallBuffer/2 {
		c.grow()
	}
}

// grow moves the unread bytes to a larger buffer; a head stays where it is, held or left to the collector.
func (c *Conn) grow() {
	size := largeBuffer
	if c.keep == 0 {
		size = 2 * len(c.buf)
	}
	for size < c.w-c.r+smallBuffer {
		size *= 2
	}
	larger := c.buffers.get(size)
	n := copy(larger, c.buf[c.r:c.w])
	switch {
	case c.keep == 0:
		c.buffers.put(c.buf)
	case c.held == nil:
		c.held = c.buf
	}
	c.buf, c.r, c.w, c.keep = larger, 0, n, 0
}

// fill reads more; it returns nil only if there is more.
func (c *Conn) fill() error {
	if c.sink != nil {
		if err := c.sink.flush(); err != nil {
			return err
		}
	}
	c.room()
	for {
		n, err := c.Conn.Read(c.buf[c.w:])
		c.w += n
		c.full = c.w == len(c.buf)
		switch {
		case n > 0:
			c.fills++
			return nil
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && c.wait != nil && c.wait.timedOut(c):
		default:
			return err
		}
	}
}

// readHead reads until the empty line.
func (c *Conn) readHead() ([]byte, error) {
	armed := false
	var scan message.Scan // of what begins at r, for fill may move it
	for {
		pending := c.buf[c.r:c.w]
		end, err := scan.End(pending)
		switch {
		case err != nil:
			return nil, err
		case end > c.maxHead, end == 0 && len(pending) > c.maxHead:
			return nil, message.TooLarge("fields")
		case end > 0:
			c.r += end
			c.keep = c.r
			return pending[:end], nil
		}
		if len(pending) > 0 && c.headTimeout > 0 && !armed {
			armed = true
			c.readUntil(time.Now().Add(c.headTimeout))
		}
		if err := c.fill(); err != nil {
			if len(pending) > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// ReadRequest reads the next request's head and normalises its path. The one before, with its body, must be done.
func (c *Conn) ReadRequest() (*message.Request, error) {
	head, err := c.readHead()
	if err != nil {
		return nil, err
	}
	c.path, err = message.ParseRequest(&c.request, head, c.path)
	if err != nil {
		return nil, err
	}
	c.body = Body{c: c, length: c.request.Length(), left: c.request.Length()}
	return &c.request, nil
}

// ReadResponse reads the head of the response to a request with the given method.
func (c *Conn) ReadResponse(method string) (*message.Response, error) {
	head, err := c.readHead()
	if err != nil {
		return nil, err
	}
	if err := message.ParseResponse(&c.response, head, method); err != nil {
		return nil, err
	}
	c.body = Body{c: c, length: c.response.Length(), left: c.response.Length()}
	return &c.response, nil
}

// slack is how much later than asked a deadline may be: setting one for every message would cost more than parsing.
const slack = 4

// readWithin sets the read deadline to about d from now; a deadline that stands between d*3/4 and d stays.
func (c *Conn) readWithin(now time.Time, d time.Duration) {
	if left := c.readBy.Sub(now); left <= d && left >= d-d/slack {
		return
	}
	c.readUntil(now.Add(d))
}

func (c *Conn) readUntil(t time.Time) {
	c.readBy = t
	_ = c.Conn.SetReadDeadline(t)
}

// writeWithin is readWithin for writing.
func (c *Conn) writeWithin(now time.Time, d time.Duration) {
	if left := c.writeBy.Sub(now); left <= d && left >= d-d/slack {
		return
	}
	c.writeBy = now.Add(d)
	_ = c.Conn.SetWriteDeadline(c.writeBy)
}
