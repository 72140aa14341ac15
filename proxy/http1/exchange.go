package http1

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// patience is how long an exchange waits for the upstream before it looks whether the client is still there.
// Fast responses, nearly all, then cost no second goroutine.
const patience = 500 * time.Millisecond

// Errors of an exchange.
var (
	// ErrClientGone: the client closed, or broke its request; there is nobody to answer.
	ErrClientGone = errors.New("client is gone")
	// ErrTimeout: the deadline given to Await passed. ErrIdle: nothing came for Idle.
	ErrTimeout = errors.New("timed out")
	ErrIdle    = errors.New("idle for too long")
	// ErrClosed wraps the end of an upstream connection.
	ErrClosed = errors.New("upstream closed")
	// ErrSlow: the client did not send the whole request by ReceiveBy, or nothing of it for Idle. It is answered 408.
	ErrSlow = errors.New("request was not received in time")
	// ErrBody wraps what was malformed in a request's body; it is answered 400.
	ErrBody = errors.New("request body")
)

// Exchange is one request, served on a client's connection, until its response is finished.
type Exchange struct {
	Request *message.Request
	// Until is the deadline of the whole exchange and Idle of a wait for one byte; zero: none.
	Until time.Time
	Idle  time.Duration
	// ReceiveBy is when the whole request must have been received; zero: never.
	ReceiveBy time.Time
	// What happened, for the record.
	RequestBytes, ResponseBytes int64
	Status                      int  // of the response begun, 0: none
	Truncated                   bool // the response could not be finished: the connection closes

	client *Conn
	server *Server

	whole   bool // the body is payload
	payload []byte
	scratch []byte
	asked   bool // 100 Continue was sent

	up      *Conn
	by      time.Time
	expired bool
	idled   bool  // for want of bytes, not by a deadline
	fresh   int64 // bytes of the response when the last idle period began

	reading receiving // the waiter of reads from the client

	gone       atomic.Bool
	stopping   atomic.Bool
	responding atomic.Bool   // the response has begun
	watching   chan struct{} // closed when the watch ended
	sending    chan struct{} // closed when the body was streamed
	readErr    error         // of streaming; read after sending closed
	writeErr   error

	id [36]byte // of NewRequestID

	last bool // the connection must not carry another request
	keep bool // the connection may carry another request
	slow bool // the request was not received in time
}

func (x *Exchange) begin(r *message.Request) {
	payload := x.scratch
	*x = Exchange{client: x.client, server: x.server, scratch: payload[:0], Request: r}
	x.whole = r.Length() == 0
	x.client.wait = nil
}

// Last makes the exchange the last of its connection; call it before there is a response.
func (x *Exchange) Last() { x.last = true }

// Abort closes both connections, whoever uses them: for an exchange that nobody goes on with.
func (x *Exchange) Abort() {
	x.keep, x.Truncated = false, true
	x.client.lost = true
	_ = x.client.Conn.Close()
	if x.up != nil {
		x.up.lost = true
		x.up.Release()
	}
}

// NewRequestID formats two random numbers as a UUID (RFC 9562, version 4), valid as long as the request.
func (x *Exchange) NewRequestID(high, low uint64) string {
	high = high&^0xf000 | 0x4000
	low = low&^(3<<62) | 2<<62
	const digits = "0123456789abcdef"
	at := 0
	for i := range 32 {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			x.id[at] = '-'
			at++
		}
		word := high
		if i >= 16 {
			word = low
		}
		x.id[at] = digits[word>>(60-4*(i%16))&15]
		at++
	}
	return message.View(x.id[:])
}

// Prepare makes the body ready to be sent more than once, if it is all there, or is known to be at most limit bytes
// long and can be read. It tells whether it did. It blocks only for the second reason.
func (x *Exchange) Prepare(limit int) (bool, error) {
	if x.whole {
		return true, nil
	}
	c := x.client
	switch n := x.Request.Length(); {
	case n == message.Chunked:
		x.prepareChunked()
		return x.whole, nil
	case n > int64(c.w-c.r) && n > int64(limit):
		return false, nil
	}
	if err := x.prepareCounted(int(x.Request.Length())); err != nil {
		return false, x.clientError(err)
	}
	return true, nil
}

func (x *Exchange) prepareCounted(n int) error {
	c := x.client
	if c.w-c.r < n {
		if err := x.askBody(); err != nil {
			return err
		}
	}
	for c.w-c.r < n {
		if err := c.fill(); err != nil {
			return err
		}
	}
	c.wait = nil
	x.payload = c.buf[c.r : c.r+n]
	x.pin(n)
	return nil
}

// pin keeps the payload with the head until the message is done.
func (x *Exchange) pin(n int) {
	c := x.client
	c.r += n
	c.keep = c.r
	c.body.left, c.body.done = 0, true
	x.whole, x.RequestBytes = true, int64(len(x.payload))
}

// prepareChunked decodes what has been read; if that is not the whole body nothing has happened.
func (x *Exchange) prepareChunked() {
	c := x.client
	body, r := c.body, c.r
	c.body.pause = true
	for {
		data, err := c.body.Next()
		if err == nil {
			x.scratch = append(x.scratch, data...)
			continue
		}
		if err != io.EOF { // not all there, or wrong: streaming will tell
			c.body, c.r = body, r
			x.scratch = x.scratch[:0]
			return
		}
		x.payload = x.scratch
		x.pin(0)
		return
	}
}

// askBody answers Expect: 100-continue once somebody wants the body.
func (x *Exchange) askBody() error {
	x.receive()
	if !x.Request.ExpectsContinue() || x.asked {
		return nil
	}
	x.asked = true
	x.client.out = append(x.client.out, "HTTP/1.1 100 Continue\r\n\r\n"...)
	return x.client.flush()
}

func (x *Exchange) bodyIdle() time.Duration {
	if x.Idle > 0 {
		return x.Idle
	}
	return writeTimeout
}

// Send writes the request upstream, head and body in one write if the body is ready; else the body follows from a
// goroutine of its own while the response is awaited. A failed Send may have sent everything.
func (x *Exchange) Send(up *Conn, e *message.Edit) error {
	x.stopWatch()
	x.up = up
	up.Uses++
	up.broken = nil
	up.out = message.AppendRequest(up.out[:0], x.Request, e)
	if x.whole {
		return x.sendPayload(up)
	}
	if err := x.askBody(); err != nil {
		return ErrClientGone
	}
	x.stopping.Store(false)
	x.sending = make(chan struct{})
	go x.stream(up)
	return nil
}

func (x *Exchange) sendPayload(up *Conn) error {
	isChunked := x.Request.Length() == message.Chunked
	if isChunked && len(x.payload) > 0 {
		up.out = append(strconv.AppendInt(up.out, int64(len(x.payload)), 16), "\r\n"...)
	}
	if err := up.emit(x.payload); err != nil {
		return err
	}
	if isChunked {
		if len(x.payload) > 0 {
			up.out = append(up.out, "\r\n"...)
		}
		up.out = append(append(append(up.out, "0\r\n"...), x.client.body.trailer...), "\r\n"...)
	}
	return up.flush()
}

func (x *Exchange) stream(up *Conn) {
	defer close(x.sending)
	x.readErr, x.writeErr = relay(up, &x.client.body, x.Request.Length() == message.Chunked)
	if x.readErr != nil { // the upstream must not take what it has for a request: Await fails, and closes
		x.gone.Store(true)
		_ = up.Conn.SetReadDeadline(past())
	}
}

func past() time.Time { return time.Unix(1, 0) }

// Streaming tells whether the body is being sent by a goroutine: such a request cannot be sent again.
func (x *Exchange) Streaming() bool { return x.sending != nil }

// sent tells whether the whole request went out.
func (x *Exchange) sent() bool {
	if x.sending == nil {
		return x.whole
	}
	select {
	case <-x.sending:
		return x.readErr == nil && x.writeErr == nil
	default:
		return false
	}
}

// Await reads the head of the final response; by is its deadline, zero: none. Errors wrap ErrTimeout, ErrIdle, ErrClientGone,
// ErrBody, message.ErrMalformed, message.ErrTooLarge or ErrClosed.
func (x *Exchange) Await(up *Conn, by time.Time) (*message.Response, error) {
	x.by, x.expired, x.idled, x.fresh = by, false, false, -1
	up.wait = x
	x.arm(up)
	for {
		response, err := up.ReadResponse(x.Request.Method)
		switch {
		case err != nil:
			return nil, x.why(err)
		case response.Status >= 200:
			return response, nil
		case response.Status == 101:
			return response, x.checkSwitch(response)
		}
		if err := x.interim(up, response); err != nil {
			return nil, ErrClientGone
		}
		up.next()
	}
}

// arm sets the first deadline of a wait.
func (x *Exchange) arm(up *Conn) {
	now := time.Now()
	if !x.by.IsZero() && x.by.Sub(now) < patience {
		up.readUntil(x.by)
		return
	}
	up.readWithin(now, patience)
}

// interim passes 103 on, the only interim response that says something to the client (RFC 8297).
func (x *Exchange) interim(up *Conn, response *message.Response) error {
	if response.Status != http.StatusEarlyHints || !x.Request.HTTP11() {
		return nil
	}
	c := x.client
	c.out = message.AppendStatus(c.out, response.Status, response.Reason)
	c.out = append(message.AppendFields(c.out, response.Fields, &message.Edit{}), "\r\n"...)
	return c.flush()
}

// checkSwitch: 101 only if asked for, and for what was asked (RFC 9110, section 7.8).
func (x *Exchange) checkSwitch(response *message.Response) error {
	if x.Request.Upgrade() == "" || !strings.EqualFold(response.Upgrade(), x.Request.Upgrade()) {
		return message.Malformed("101 without a request for it")
	}
	return nil
}

// why turns a failed read from the upstream into what it means.
func (x *Exchange) why(err error) error {
	switch {
	case x.gone.Load():
		if x.sending != nil {
			<-x.sending
			return x.clientError(x.readErr)
		}
		return ErrClientGone
	case x.expired && x.idled:
		return ErrIdle
	case x.expired:
		return ErrTimeout
	case errors.Is(err, message.ErrMalformed) || errors.Is(err, message.ErrTooLarge):
		return err
	}
	return errors.Join(ErrClosed, err)
}

// timedOut implements waiter: it watches the client from now on, and ends the wait at its deadline.
func (x *Exchange) timedOut(up *Conn) bool {
	now := time.Now()
	idle := x.Idle > 0 && x.fresh == up.body.total
	late := !x.by.IsZero() && !now.Before(x.by)
	if x.gone.Load() || late || idle && x.watching != nil {
		x.expired, x.idled = !x.gone.Load(), !late
		return false
	}
	x.watch()
	x.fresh = up.body.total
	next := x.by
	if x.Idle > 0 && (next.IsZero() || now.Add(x.Idle).Before(next)) {
		next = now.Add(x.Idle)
	}
	if soon := now.Add(patience); x.watching == nil && (next.IsZero() || soon.Before(next)) {
		next = soon // the body is still being sent: look again when it may be done
	}
	up.readUntil(next)
	return !x.gone.Load() // the watch may have ended the wait before the deadline was moved
}

// watch starts to read from the client: an end or an error is the client's going, bytes are its next request.
func (x *Exchange) watch() {
	if x.watching != nil || x.sending != nil && !x.sent() {
		return // whoever streams the body notices
	}
	x.stopping.Store(false)
	x.client.readUntil(time.Time{})
	x.watching = make(chan struct{})
	go x.watchClient(x.up, x.watching)
}

func (x *Exchange) watchClient(up *Conn, done chan struct{}) {
	defer close(done)
	c := x.client
	c.room()
	n, err := c.Conn.Read(c.buf[c.w:])
	c.w += n
	if n == 0 && err != nil && !x.stopping.Load() {
		x.gone.Store(true)
		_ = up.Conn.SetReadDeadline(past())
	}
}

func (x *Exchange) stopWatch() {
	if x.watching == nil {
		return
	}
	x.stopping.Store(true)
	_ = x.client.Conn.SetReadDeadline(past())
	<-x.watching
	x.watching = nil
	x.client.readUntil(time.Time{})
}
