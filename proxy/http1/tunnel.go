package http1

import (
	"io"
	"net"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// tunnel passes bytes both ways after 101, until both sides have ended or one has failed.
func (x *Exchange) tunnel(up *Conn, e *message.Edit) error {
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
	x.pass(c, up)
	return nil
}

func (x *Exchange) pass(c, up *Conn) {
	done := make(chan int64, 1)
	go func() { done <- half(up.Conn, c.Conn) }()
	x.ResponseBytes += half(c.Conn, up.Conn)
	x.RequestBytes += <-done
}

// half copies one direction, then ends it; on an error it ends both.
func half(dst, src net.Conn) int64 {
	_ = dst.SetWriteDeadline(time.Time{})
	n, err := io.Copy(dst, src)
	if err != nil {
		dst.Close()
		src.Close()
		return n
	}
	closeWrite(dst)
	return n
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
		return
	}
	c.Close()
}
