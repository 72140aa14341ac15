package http1

import (
	"io"
	"strconv"
	"time"
)

// writeTimeout is how long a peer may take no bytes at all.
const writeTimeout = 5 * time.Minute

// flush writes what is gathered.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > 2*coalesce {
		c.out = nil
	}
	return err
}

func (c *Conn) write(b []byte) error {
	c.writeWithin(time.Now(), writeTimeout)
	_, err := c.Conn.Write(b)
	if err != nil {
		c.broken = err
	}
	return err
}

// emit gathers small pieces and writes large ones through.
func (c *Conn) emit(b []byte) error {
	if len(c.out)+len(b) <= coalesce {
		c.out = append(c.out, b...)
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	if len(b) < coalesce/2 {
		c.out = append(c.out, b...)
		return nil
	}
	return c.write(b)
}

// relay sends a body on, after the head that dst has gathered. Bytes are gathered until the source would block.
// It returns which side failed.
func relay(dst *Conn, b *Body, chunk bool) (readErr, writeErr error) {
	b.c.sink = dst
	defer func() { b.c.sink = nil }()
	for {
		data, err := b.Next()
		if err == io.EOF {
			if chunk {
				dst.out = append(append(append(dst.out, "0\r\n"...), b.trailer...), "\r\n"...)
			}
			return nil, dst.flush()
		}
		if err != nil {
			if dst.broken != nil {
				return nil, dst.broken
			}
			return err, dst.flush()
		}
		if chunk {
			dst.out = append(strconv.AppendInt(dst.out, int64(len(data)), 16), "\r\n"...)
		}
		if err := dst.emit(data); err != nil {
			return nil, err
		}
		if chunk {
			dst.out = append(dst.out, "\r\n"...)
		}
	}
}
