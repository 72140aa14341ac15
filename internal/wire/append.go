package wire

import "google.golang.org/protobuf/encoding/protowire"

// The functions below append one field. Fields are in the order of their numbers, those of a oneof last, as the generated
// code has them.

// AppendText appends a string, unless it is the default. Nobody checks that it is UTF-8.
func AppendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return AppendString(b, field, s)
}

// AppendString appends a string also if it is the default, as those of maps and oneofs are.
func AppendString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// AppendNumber appends an integer, unless it is the default.
func AppendNumber(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

// AppendMessage appends the message that fill appends, with its length before it.
func AppendMessage(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	start := len(b) + 1
	b = fill(append(b, 0)) // room for the length of a short one
	size := len(b) - start
	if more := protowire.SizeVarint(uint64(size)) - 1; more > 0 {
		b = append(b, make([]byte, more)...)
		copy(b[start+more:], b[start:start+size])
	}
	protowire.AppendVarint(b[:start-1], uint64(size))
	return b
}
