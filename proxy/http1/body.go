package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// Limits of message.Chunked coding.
const (
	maxChunkLine = 256
	maxTrailers  = 8 << 10
)

// errPause is returned by Next instead of reading when the body only looks at what is there.
var errPause = errors.New("not all there")

// Body is a message's body, decoded.
type Body struct {
	c      *Conn
	length int64 // message.Chunked, message.UntilClose, or bytes
	left   int64 // bytes of the body, or of the current chunk
	total  int64 // bytes handed out

	in      bool // inside a chunk, or after its data
	done    bool
	pause   bool // never read
	trailer []byte
}

// Next returns the next bytes, valid until it is called again, and io.EOF at the end. A connection that ends inside
// the body is io.ErrUnexpectedEOF.
func (b *Body) Next() ([]byte, error) {
	switch {
	case b.done || b.length >= 0 && b.left == 0:
		b.done = true
		return nil, io.EOF
	case b.length == message.Chunked:
		return b.nextChunked()
	}
	if err := b.more(); err != nil {
		if err == io.EOF && b.length == message.UntilClose {
			b.done = true
			return nil, io.EOF
		}
		return nil, unexpected(err)
	}
	if b.length == message.UntilClose {
		return b.take(b.c.w - b.c.r), nil
	}
	return b.takeLeft(), nil
}

// more sees to it that there is an unread byte.
func (b *Body) more() error {
	if b.c.r < b.c.w {
		return nil
	}
	return b.fill()
}

func (b *Body) fill() error {
	if b.pause {
		return errPause
	}
	return b.c.fill()
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *Body) take(n int) []byte {
	data := b.c.buf[b.c.r : b.c.r+n]
	b.c.r += n
	b.total += int64(n)
	return data
}

func (b *Body) takeLeft() []byte {
	n := int64(b.c.w - b.c.r)
	if n > b.left {
		n = b.left
	}
	b.left -= n
	return b.take(int(n))
}

// nextChunked: chunk-size [chunk-ext] CRLF chunk-data CRLF, at the end trailers and CRLF (RFC 9112, section 7.1).
func (b *Body) nextChunked() ([]byte, error) {
	if b.in && b.left == 0 {
		if err := b.endOfChunk(); err != nil {
			return nil, unexpected(err)
		}
	}
	if !b.in {
		last, err := b.startOfChunk()
		if err == nil && last {
			err = b.readTrailers()
		}
		if err != nil {
			return nil, unexpected(err)
		}
		if last {
			b.done = true
			return nil, io.EOF
		}
	}
	if err := b.more(); err != nil {
		return nil, unexpected(err)
	}
	return b.takeLeft(), nil
}

// line returns the next line without its CRLF.
func (b *Body) line(limit int) ([]byte, error) {
	for {
		pending := b.c.buffered()
		if i := bytes.IndexByte(pending, '\n'); i >= 0 && i <= limit {
			if i == 0 || pending[i-1] != '\r' {
				return nil, message.Malformed("bare line feed in a chunk")
			}
			b.c.r += i + 1
			return pending[:i-1], nil
		}
		if len(pending) > limit {
			return nil, message.Malformed("chunk line too long")
		}
		if err := b.fill(); err != nil {
			return nil, err
		}
	}
}

func (b *Body) endOfChunk() error {
	for b.c.w-b.c.r < 2 {
		if err := b.fill(); err != nil {
			return err
		}
	}
	if b.c.buf[b.c.r] != '\r' || b.c.buf[b.c.r+1] != '\n' {
		return message.Malformed("chunk longer than its size")
	}
	b.c.r += 2
	b.in = false
	return nil
}

func (b *Body) startOfChunk() (last bool, err error) {
	line, err := b.line(maxChunkLine)
	if err != nil {
		return false, err
	}
	size, ok := message.ParseChunkSize(line)
	if !ok {
		return false, message.Malformed("chunk size")
	}
	b.left, b.in = size, size > 0
	return size == 0, nil
}

// readTrailers checks the trailers and gathers those that may go on.
func (b *Body) readTrailers() error {
	b.trailer = b.trailer[:0]
	for used, count := 0, 0; ; count++ {
		line, err := b.line(maxTrailers - used)
		if err != nil || len(line) == 0 {
			return err
		}
		used += len(line)
		if used >= maxTrailers || count == message.MaxFields {
			return message.TooLarge("trailers")
		}
		f, err := message.ParseField(line)
		if err != nil {
			return err
		}
		if message.Trailing(f.Name) {
			b.trailer = append(append(append(append(b.trailer, f.Name...), ": "...), f.Value...), "\r\n"...)
		}
	}
}
