package message

import "unsafe"

// View makes a string of bytes that nobody changes while the string is in use: a head's, until the next message.
// It is the only use of unsafe; it is what keeps a request free of allocations.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// class of a byte, as bits.
const (
	isToken   = 1 << iota // tchar, RFC 9110, section 5.6.2
	isValue               // field-vchar, SP and HTAB, RFC 9110, section 5.5
	isTarget              // visible ASCII without what nobody agrees on: # \ " < > ^ ` { | }
	isHost                // of an authority without userinfo
	isNewline             // CR LF NUL: reported as such
	isPlain               // unreserved, RFC 3986, section 2.3
)

// classes is a constant table.
var classes = makeClasses()

func makeClasses() (t [256]uint8) {
	mark := func(s string, class uint8) {
		for i := range len(s) {
			t[s[i]] |= class
		}
	}
	const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mark(alnum, isToken|isTarget|isHost|isPlain)
	mark("!#$%&'*+-.^_`|~", isToken)
	mark("-._~", isPlain)
	mark("-._~:/?[]@!$&'()*+,;=%", isTarget)
	mark("-._~:[]", isHost)
	mark("\r\n\x00", isNewline)
	for c := 0x20; c < 0x100; c++ {
		if c != 0x7f {
			t[c] |= isValue
		}
	}
	t['\t'] |= isValue
	return t
}

// all tells whether every byte of s is of a class.
func all[T string | []byte](s T, class uint8) bool {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalFold compares in ASCII.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// trim cuts optional white space (RFC 9110, section 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// token cuts the first element of a comma-separated list.
func token(list string) (first, rest string) {
	end := 0
	for end < len(list) && list[end] != ',' {
		end++
	}
	first = list[:end]
	if end < len(list) {
		rest = list[end+1:]
	}
	for len(first) > 0 && (first[0] == ' ' || first[0] == '\t') {
		first = first[1:]
	}
	for len(first) > 0 && (first[len(first)-1] == ' ' || first[len(first)-1] == '\t') {
		first = first[:len(first)-1]
	}
	return first, rest
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
