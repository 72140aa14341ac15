package wire

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// list is what protowire says a message has, if its fields ascend and only those of one number come again.
func list(message []byte, repeated uint64) (out []string, ok bool) {
	var last uint64
	for len(message) > 0 {
		tag, n := protowire.ConsumeVarint(message)
		if n < 0 || tag < last || tag == last && tag>>3 != repeated {
			return nil, false
		}
		last = tag
		message = message[n:]
		switch protowire.Type(tag & 7) {
		case protowire.VarintType:
			v, m := protowire.ConsumeVarint(message)
			out, n = append(out, string(protowire.AppendVarint(nil, v))), m
		case protowire.BytesType:
			v, m := protowire.ConsumeBytes(message)
			out, n = append(out, "="+string(v)), m
		default:
			return nil, false
		}
		if n < 0 {
			return nil, false
		}
		message = message[n:]
	}
	return out, true
}

// A walk sees what protowire sees, or is Bad. Whether a number may be a field's is for its reader, who knows some.
func FuzzWalk(f *testing.F) {
	for _, message := range [][]byte{
		{}, {0}, {0x08}, {0x08, 1}, {0x08, 0x80, 1}, {0x80, 1, 1}, {0x0a, 1, 'x'}, {0x0a, 2, 'x'}, {0x0a, 0x81, 0, 'x'}, {0x0d, 1, 2, 3, 4}, {0x0b, 0x0c},
		{0x08, 1, 0x08, 1}, {0x18, 1, 0x18, 1}, {0x12, 0, 0x08, 1}, {0x08, 1, 0x12, 0}, bytes.Repeat([]byte{0xff}, 11),
		{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		want, ok := list(message, 3)
		var got []string
		walk := Walk(message, 1<<3)
		for walk.Next() {
			if walk.Tag&7 == Delimited {
				got = append(got, "="+string(walk.Value()))
			} else {
				got = append(got, string(protowire.AppendVarint(nil, walk.Number)))
			}
		}
		if ok == walk.Bad || ok && !slices.Equal(got, want) {
			t.Fatalf("%q, bad %v; want %q, %v", got, walk.Bad, want, ok)
		}
		Count(message, 3<<3|Delimited)
	})
}

func TestWords(t *testing.T) {
	message := AppendText(AppendText(AppendText(nil, 1, "a"), 2, "a"), 3, "\xff")
	var last string
	f := Walk(message, 0)
	for _, want := range []string{"a", "a"} {
		if !f.Next() || f.Word(&last) != want || last != want {
			t.Fatalf("%q, want %q", last, want)
		}
	}
	if !f.Next() || f.Word(&last) != "a" || !f.Bad || f.Next() {
		t.Fatal("what is not UTF-8 is a word")
	}
}

func TestCount(t *testing.T) {
	message := AppendNumber(AppendText(AppendText(AppendText(nil, 1, "a"), 2, "b"), 2, "c"), 3, 300)
	if n := Count(message, 2<<3|Delimited); n != 2 {
		t.Errorf("%d fields", n)
	}
	if n := Count(message, 2<<3|Varint); n != 0 {
		t.Errorf("%d fields of another type", n)
	}
}

// Lengths of every size are what protowire writes, whatever stands before.
func TestMessages(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, 16_383, 16_384, 1 << 21} {
		text := strings.Repeat("x", size)
		fill := func(b []byte) []byte { return append(b, text...) }
		want := protowire.AppendString(protowire.AppendTag([]byte("before"), 99, protowire.BytesType), text)
		if got := AppendMessage([]byte("before"), 99, fill); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %.20q, want %.20q", size, got, want)
		}
	}
	if got := AppendNumber(AppendText(nil, 1, ""), 2, 0); len(got) != 0 {
		t.Errorf("defaults are written: %q", got)
	}
	if got := AppendString(nil, 1, ""); !bytes.Equal(got, []byte{0x0a, 0}) {
		t.Errorf("an empty string is written as %q", got)
	}
}

func TestEach(t *testing.T) {
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for what, c := range map[string]struct {
		message []byte
		want    string
		ok      bool
	}{
		"nothing":              {nil, "", true},
		"in any order":         {join(AppendString(nil, 2, "b"), AppendNumber(nil, 5, 300), AppendString(nil, 1, ""), AppendString(nil, 2, "c")), "2b1 2c", true},
		"a group":              {join([]byte{0x0b, 0x12, 1, 'x', 0x0c}, AppendString(nil, 2, "b")), "2b", true},
		"a group without end":  {[]byte{0x0b, 0x12, 1, 'x'}, "", false},
		"an end without group": {[]byte{0x0c}, "", false},
		"cut":                  {join(AppendString(nil, 2, "b"), []byte{0x0a, 2, 'x'}), "2b", false},
		"field 0":              {[]byte{0x02, 0}, "", false},
		"field past the last":  {[]byte{0xd2, 0xef, 0xef, 0xef, 0x30, 0}, "", false},
	} {
		var got string
		err := Each(c.message, func(field protowire.Number, value []byte) error {
			got += fmt.Sprintf("%d%-1s", field, value)
			return nil
		})
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %q (%v), want %q", what, got, err, c.want)
		}
	}
	stop := errors.New("enough")
	if err := Each(AppendString(nil, 2, "b"), func(protowire.Number, []byte) error { return stop }); err != stop {
		t.Error(err)
	}
}
