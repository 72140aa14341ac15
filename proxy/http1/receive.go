package http1

import (
	"errors"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// receiving decides at a read deadline of the client, while a request's body is read.
type receiving struct {
	x       *Exchange
	read    int  // fills that ended with bytes, when the last idle period began
	excused bool // ReceiveBy has passed, without effect
}

// receive sets the first deadline of reading the body; later ones follow as long as bytes come. ReceiveBy ends with the
// response's head, as Envoy's request_timeout: the rest is the upstream's to wait for.
func (x *Exchange) receive() {
	x.reading = receiving{x: x, read: x.client.fills}
	x.client.wait = &x.reading
	x.armReceive(time.Now())
}

func (x *Exchange) armReceive(now time.Time) {
	if idle := x.bodyIdle(); x.ReceiveBy.IsZero() || x.responding.Load() || x.ReceiveBy.Sub(now) > idle {
		x.client.readWithin(now, idle)
		return
	}
	x.client.readUntil(x.ReceiveBy)
}

// timedOut implements waiter.
func (r *receiving) timedOut(c *Conn) bool {
	now := time.Now()
	over := !r.x.ReceiveBy.IsZero() && !now.Before(r.x.ReceiveBy)
	late := over && !r.x.responding.Load()
	idle := c.fills == r.read && (!over || r.excused)
	if late || idle || r.x.stopping.Load() {
		return false
	}
	r.excused = over
	r.read = c.fills
	c.readBy = time.Time{}
	r.x.armReceive(now)
	return !r.x.stopping.Load() // Settle may have ended the wait before the deadline was moved
}

// clientError turns a failed read of the body into what it means.
func (x *Exchange) clientError(err error) error {
	switch {
	case isTimeout(err) && !x.stopping.Load():
		x.slow = true
		return ErrSlow
	case errors.Is(err, message.ErrMalformed) || errors.Is(err, message.ErrTooLarge):
		return errors.Join(ErrBody, err)
	}
	return ErrClientGone
}
