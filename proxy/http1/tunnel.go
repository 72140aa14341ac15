package http1

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// tunnel passes bytes both ways after 101, until both sides have ended, one has failed, nothing
// has passed for Idle, or ctx ends.
func (x *Exchange) tunnel(ctx context.Context, up *Conn, e *message.Edit) error {
	x.stopWatch()
	x.keep, x.Status = false, 101
	c, response := x.client, &up.response
	up.wait, c.wait = nil, nil
	up.readUntil(time.Time{})
	c.readUntil(time.Time{})
	c.out = message.AppendStatus(c.out, response.Status, response.Reason)
	c.out = message.AppendFields(c.out, response.Fields, e)
	c.out = append(c.out, "Connection: upgrade\r\n"...)
	c.out = append(message.AppendField(c.out, "Upgrade", response.Upgrade()), "\r\n"...)
	c.out = append(c.out, up.buffered()...)
	x.ResponseBytes = int64(len(up.buffered()))
	if err := c.flush(); err != nil {
		return ErrClientGone
	}
	up.out = append(up.out[:0], c.buffered()...)
	x.RequestBytes = int64(len(up.out))
	if err := up.flush(); err != nil {
		return ErrClosed
	}
	_ = c.Conn.SetWriteDeadline(time.Time{})
	_ = up.Conn.SetWriteDeadline(time.Time{})
	var sent, received atomic.Int64
	_, _ = splice.Run(ctx, c.Conn, up.Conn, splice.Config{IdleTimeout: x.Idle, Sent: &sent, Received: &received})
	x.RequestBytes += sent.Load()
	x.ResponseBytes += received.Load()
	return nil
}
