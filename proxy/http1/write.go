package http1

import (
	"io"
	"slices"
	"strconv"
	"time"
)

// writeTimeout is how long a peer may take no bytes at all.
const writeTimeout = 5 * time.Minute

// Pair is a field to send.
type Pair struct{ Name, Value string }

// Edit is how a head differs from the one received.
type Edit struct {
	Host, Path string   // of a request; "" means as received
	Remove     []string // by any case
	Set        []Pair   // replace every field of that name
	Add        []Pair
}

// Reset empties e and keeps its memory.
func (e *Edit) Reset() {
	*e = Edit{Remove: e.Remove[:0], Set: e.Set[:0], Add: e.Add[:0]}
}

// Replace sets a field, in place of every other of its name.
func (e *Edit) Replace(name, value string) {
	for i := range e.Set {
		if equalFold(e.Set[i].Name, name) {
			e.Set[i].Value = value
			return
		}
	}
	e.Set = append(e.Set, Pair{name, value})
}

// Drop removes a field, whether it was received or set.
func (e *Edit) Drop(name string) {
	named := func(p Pair) bool { return equalFold(p.Name, name) }
	e.Set, e.Add = slices.DeleteFunc(e.Set, named), slices.DeleteFunc(e.Add, named)
	e.Remove = append(e.Remove, name)
}

// Sets tells whether a field is set or added.
func (e *Edit) Sets(name string) bool {
	named := func(p Pair) bool { return equalFold(p.Name, name) }
	return slices.ContainsFunc(e.Set, named) || slices.ContainsFunc(e.Add, named)
}

func (e *Edit) drops(name string) bool {
	for i := range e.Set {
		if equalFold(e.Set[i].Name, name) {
			return true
		}
	}
	for _, n := range e.Remove {
		if equalFold(n, name) {
			return true
		}
	}
	return false
}

func appendField(out []byte, name, value string) []byte {
	out = append(append(out, name...), ": "...)
	return append(append(out, value...), "\r\n"...)
}

func appendFields(out []byte, fields []Field, e *Edit) []byte {
	for i := range fields {
		f := &fields[i]
		if f.kind.forwarded() && !e.drops(f.Name) {
			out = appendField(out, f.Name, f.Value)
		}
	}
	for i := range e.Set {
		out = appendField(out, e.Set[i].Name, e.Set[i].Value)
	}
	for i := range e.Add {
		out = appendField(out, e.Add[i].Name, e.Add[i].Value)
	}
	return out
}

// appendRequest writes the head for the next hop.
func appendRequest(out []byte, r *Request, e *Edit) []byte {
	host, path := r.Host, r.Path
	if e.Host != "" {
		host = e.Host
	}
	if e.Path != "" {
		path = e.Path
	}
	out = append(append(out, r.Method...), ' ')
	out = append(append(out, path...), " HTTP/1.1\r\nHost: "...)
	out = append(append(out, host...), "\r\n"...)
	out = appendFields(out, r.Fields, e)
	if r.upgrade != "" {
		out = appendField(append(out, "Connection: upgrade\r\n"...), "Upgrade", r.upgrade)
	}
	if r.lengths+r.encodings > 0 {
		out = appendLength(out, r.length)
	}
	return append(out, "\r\n"...)
}

func appendLength(out []byte, length int64) []byte {
	if length == chunked {
		return append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	out = append(out, "Content-Length: "...)
	return append(strconv.AppendInt(out, length, 10), "\r\n"...)
}

// appendStatus writes a status line.
func appendStatus(out []byte, status int, reason string) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(status), 10), ' ')
	return append(append(out, reason...), "\r\n"...)
}

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
