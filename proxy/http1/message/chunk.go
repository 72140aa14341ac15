package message

import "strings"

// ParseChunkSize reads the line before a chunk (RFC 9112, section 7.1): hexadecimal digits, then nothing or an extension, which is checked and dropped.
func ParseChunkSize(line []byte) (int64, bool) {
	var size int64
	digits := 0
	for ; digits < len(line); digits++ {
		d, ok := hexDigit(line[digits])
		if !ok {
			break
		}
		size = size<<4 | int64(d)
	}
	if digits == 0 || digits > 15 {
		return 0, false
	}
	extension := line[digits:]
	return size, len(extension) == 0 || extension[0] == ';' && all(extension, isValue)
}

// Trailing tells whether a field may be sent as a trailer: framing, routing, request modifiers and credentials may
// not (RFC 9110, section 6.5.1), for a recipient could merge them into the head.
func Trailing(name string) bool {
	if kindOf(name) != kindOther {
		return false
	}
	for _, prefix := range [...]string{"x-", "content-", "sec-", "if-"} {
		if len(name) >= len(prefix) && equalFold(name[:len(prefix)], prefix) && !strings.EqualFold(name, "content-md5") {
			return equalFold(prefix, "x-") && !hasFold(name, "x-forwarded") && !hasFold(name, "x-envoy")
		}
	}
	for _, refused := range [...]string{"authorization", "cookie", "set-cookie", "cache-control", "range", "trailer", "max-forwards", "forwarded", "location", "age", "date", "expires", "vary", "www-authenticate"} {
		if equalFold(name, refused) {
			return false
		}
	}
	return true
}

func hasFold(name, prefix string) bool {
	return len(name) >= len(prefix) && equalFold(name[:len(prefix)], prefix)
}
