package message

import (
	"slices"
	"strconv"
)

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

// AppendField writes one line.
func AppendField(out []byte, name, value string) []byte {
	out = append(append(out, name...), ": "...)
	return append(append(out, value...), "\r\n"...)
}

// AppendFields writes those fields that go on, edited.
func AppendFields(out []byte, fields []Field, e *Edit) []byte {
	for i := range fields {
		f := &fields[i]
		if f.kind.forwarded() && !e.drops(f.Name) {
			out = AppendField(out, f.Name, f.Value)
		}
	}
	for i := range e.Set {
		out = AppendField(out, e.Set[i].Name, e.Set[i].Value)
	}
	for i := range e.Add {
		out = AppendField(out, e.Add[i].Name, e.Add[i].Value)
	}
	return out
}

// AppendRequest writes the head for the next hop, with its empty line: framing, Host, target and what is hop-by-hop are
// our own.
func AppendRequest(out []byte, r *Request, e *Edit) []byte {
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
	out = AppendFields(out, r.Fields, e)
	if r.upgrade != "" {
		out = AppendField(append(out, "Connection: upgrade\r\n"...), "Upgrade", r.upgrade)
	}
	if r.lengths+r.encodings > 0 {
		out = AppendLength(out, r.length)
	}
	return append(out, "\r\n"...)
}

// AppendLength writes the field that frames a body of a length, which may be Chunked.
func AppendLength(out []byte, length int64) []byte {
	if length == Chunked {
		return append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	out = append(out, "Content-Length: "...)
	return append(strconv.AppendInt(out, length, 10), "\r\n"...)
}

// AppendStatus writes a status line; the rest of the head follows.
func AppendStatus(out []byte, status int, reason string) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(status), 10), ' ')
	return append(append(out, reason...), "\r\n"...)
}
