package http1

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// maxDrain is how much of an unwanted body is read to keep a connection.
const maxDrain = 64 << 10

// Relay sends the response that Await returned to the client. reusable tells whether up may carry another request;
// if not, the caller releases it. An error is ErrClientGone, or tells why the upstream did not finish; the client's
// connection is then closed where it stands, so that the client sees a truncation (RFC 9112, section 8). A connection that
// was upgraded (101) is passed on here, too, until it or ctx ends.
func (x *Exchange) Relay(ctx context.Context, up *Conn, e *message.Edit) (reusable bool, err error) {
	response := &up.response
	if response.Status == http.StatusSwitchingProtocols {
		return false, x.tunnel(ctx, up, e)
	}
	c := x.client
	x.responding.Store(true)
	x.by, x.expired, x.idled = x.Until, false, false
	chunk := x.appendHead(response, e)
	x.Status = response.Status
	readErr, writeErr := relay(c, &up.body, chunk)
	x.ResponseBytes = up.body.total
	x.stopWatch()
	if readErr != nil || writeErr != nil {
		x.keep, x.Truncated = false, true
		if writeErr != nil {
			return false, ErrClientGone
		}
		return false, x.why(readErr)
	}
	return x.reusable(up, response), nil
}

func (x *Exchange) reusable(up *Conn, response *message.Response) bool {
	up.wait = nil
	ok := up.body.done && response.Keeps() && x.sent() && up.broken == nil
	up.next()
	if ok = ok && up.w == 0; ok { // else bytes that nobody asked for: out of step
		x.up = nil // it is somebody else's from now on
	}
	return ok
}

// appendHead writes the response's head and decides the framing towards the client.
func (x *Exchange) appendHead(response *message.Response, e *message.Edit) (chunk bool) {
	c, length := x.client, response.Length()
	c.broken = nil
	c.out = message.AppendStatus(c.out, response.Status, response.Reason)
	c.out = message.AppendFields(c.out, response.Fields, e)
	x.keep = x.mayKeep()
	bodyless := x.Request.Method == "HEAD" || response.Status == 204 || response.Status == 304
	switch {
	case bodyless:
		if value, ok := response.ContentLength(); ok && response.Status != 204 {
			c.out = message.AppendField(c.out, "Content-Length", value)
		}
	case length >= 0:
		c.out = message.AppendLength(c.out, length)
	case x.Request.HTTP11():
		chunk = true
		c.out = message.AppendLength(c.out, message.Chunked)
	default:
		x.keep = false
	}
	up := x.up
	up.body.done = bodyless || length == 0
	c.out = append(x.appendConnection(c.out), "\r\n"...)
	return chunk
}

// mayKeep: the client wants it, we are not draining, and its request has been read to the end.
func (x *Exchange) mayKeep() bool {
	r := x.Request
	if x.last || !r.Keeps() || x.server.draining.Load() {
		return false
	}
	return x.sent()
}

func (x *Exchange) appendConnection(out []byte) []byte {
	switch {
	case !x.keep:
		return append(out, "Connection: close\r\n"...)
	case !x.Request.HTTP11():
		return append(out, "Connection: keep-alive\r\n"...)
	}
	return out
}

// Reply answers without an upstream. fields may be nil.
func (x *Exchange) Reply(status int, body string, fields ...message.Pair) {
	if x.Status != 0 {
		x.keep, x.Truncated = false, true // a response has begun: it can only be cut
		return
	}
	c := x.client
	x.stopWatch()
	x.keep = !x.slow && (x.mayKeep() || x.drainable())
	x.Status = status
	c.broken = nil
	c.out = message.AppendStatus(c.out[:0], status, http.StatusText(status))
	for _, f := range fields {
		c.out = message.AppendField(c.out, f.Name, f.Value)
	}
	if body != "" {
		c.out = message.AppendField(c.out, "Content-Type", "text/plain")
	}
	if status != http.StatusNoContent { // RFC 9110, section 8.6
		c.out = message.AppendLength(c.out, int64(len(body)))
	}
	c.out = append(x.appendConnection(c.out), "\r\n"...)
	if x.Request.Method != "HEAD" {
		c.out = append(c.out, body...)
		x.ResponseBytes = int64(len(body))
	}
	if c.flush() != nil {
		x.keep, x.Truncated = false, true
	}
}

// drainable: nobody wanted the body, but it is short and on its way.
func (x *Exchange) drainable() bool {
	r := x.Request
	if x.last || !r.Keeps() || !r.HTTP11() || x.server.draining.Load() || x.sending != nil || r.ExpectsContinue() {
		return false
	}
	return r.Length() >= 0 && r.Length() <= maxDrain
}

// Settle ends what still runs for the exchange: a body that is being sent while its response is complete is given up.
// The byte counts are final afterwards.
func (x *Exchange) Settle() {
	x.stopWatch()
	if x.sending == nil {
		return
	}
	if !x.sent() {
		x.keep = false
		x.stopping.Store(true)
		_ = x.client.Conn.SetReadDeadline(past())
		_ = x.up.Conn.SetDeadline(past())
		<-x.sending
	}
	if x.Status != http.StatusSwitchingProtocols {
		x.RequestBytes = x.client.body.total
	}
}

// finish ends the exchange and tells whether the connection carries on.
func (x *Exchange) finish() bool {
	x.Settle()
	x.client.wait = nil
	if !x.keep || x.Truncated {
		return false
	}
	c := x.client
	if !c.body.done {
		c.readUntil(time.Now().Add(5 * time.Second))
	}
	for !c.body.done {
		if _, err := c.body.Next(); err != nil && !c.body.done {
			return false
		}
	}
	c.next()
	return true
}

// refuse answers what could not be read.
func refuse(c *Conn, status int) {
	reason := http.StatusText(status)
	c.out = message.AppendStatus(c.out[:0], status, reason)
	c.out = append(c.out, "Content-Type: text/plain\r\nConnection: close\r\nContent-Length: "...)
	c.out = append(strconv.AppendInt(c.out, int64(len(reason)), 10), "\r\n\r\n"...)
	c.out = append(c.out, reason...)
	_ = c.flush()
}
