package wire

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Wire types, of which a tag is the sum with eight times the field's number: 3<<3 | Delimited.
const (
	Varint    = uint64(protowire.VarintType)
	Delimited = uint64(protowire.BytesType) // strings, bytes, messages
)

// Fields walks through a message that stands as the generated code writes it: its fields in the order of their numbers and,
// but for the repeated, once. What other programs may write instead is left to the generated code. Places are numbers, not
// slices, for the collector has nothing to do with those.
type Fields struct {
	data     []byte
	at       int
	repeated uint64
	from, to int // of the field, if it is delimited

	// Tag is the field's number and wire type.
	Tag uint64
	// Number is its value, if it is a varint.
	Number uint64
	// Bad says that the message is not like that, or its reader that it cannot read the field. Then it is over.
	Bad bool
}

// Walk returns what is before the first field. Bit n of repeated is set if field n may be there more than once; n is below 64.
func Walk(message []byte, repeated uint64) Fields { return Fields{data: message, repeated: repeated} }

// Next tells whether there is another field, and goes to it. After the last one, Bad tells whether all was well.
func (f *Fields) Next() bool {
	if f.Bad || f.Done() {
		return false
	}
	last := f.Tag
	f.Tag = f.varint()
	if f.Tag < last || f.Tag == last && f.repeated>>(f.Tag>>3)&1 == 0 {
		f.Bad = true
	}
	switch f.Tag & 7 {
	case Varint:
		f.Number = f.varint()
	case Delimited:
		size := f.varint()
		if size > uint64(len(f.data)-f.at) {
			f.Bad = true
			return false
		}
		f.from, f.to = f.at, f.at+int(size)
		f.at = f.to
	default:
		f.Bad = true
	}
	return !f.Bad
}

// Done tells whether nothing comes after the field.
func (f *Fields) Done() bool { return f.at == len(f.data) }

// Value is what a delimited field holds, a part of the message.
func (f *Fields) Value() []byte { return f.data[f.from:f.to] }

// Text is the value of a string, which is Bad if it is not UTF-8.
func (f *Fields) Text() []byte {
	value := f.Value()
	if !utf8.Valid(value) {
		f.Bad = true
	}
	return value
}

// Word is the value of a string: the string at last if that is equal, else a new one, which is then the last.
func (f *Fields) Word(last *string) string {
	if string(f.Value()) == *last {
		return *last
	}
	if text := f.Text(); !f.Bad {
		*last = string(text)
	}
	return *last
}

func (f *Fields) varint() uint64 {
	if f.at < len(f.data) && f.data[f.at] < 0x80 {
		f.at++
		return uint64(f.data[f.at-1])
	}
	v, n := protowire.ConsumeVarint(f.data[f.at:])
	if n < 0 {
		f.Bad = true
		return 0
	}
	f.at += n
	return v
}

// Count is how often a message has fields with a tag, or less if Walk would end in the middle.
func Count(message []byte, tag uint64) (n int) {
	for f := Walk(message, ^uint64(0)); f.Next(); {
		if f.Tag == tag {
			n++
		}
	}
	return n
}
