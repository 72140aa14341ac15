package message

import (
	"bytes"
	"strings"
)

// Normalize returns target with its path in the one form that is authorised, matched and forwarded: unreserved
// characters decoded, other escapes in upper case, slashes merged, dot segments resolved (RFC 3986, section 6.2.2).
// It refuses what servers disagree on: escaped slashes, backslashes and NUL, broken escapes, fragments. The query is
// not touched. Idempotent. A target that is normal already is returned as it is; else the result lives in scratch,
// which is returned for reuse.
func Normalize(scratch []byte, target string) (normal string, out []byte, ok bool) {
	path, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	if path == "" || path[0] != '/' || strings.IndexByte(target, '#') >= 0 {
		return "", scratch, false
	}
	if isNormal(path) {
		return target, scratch, true
	}
	out, ok = decodePath(scratch[:0], path)
	if !ok {
		return "", out, false
	}
	out = append(resolveDots(out), query...)
	return View(out), out, true
}

// isNormal is the fast way out: no escapes, no empty or dotted segments, nothing refused.
func isNormal(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		case c == '%' || classes[c]&isTarget == 0:
			return false
		}
	}
	return true
}

func decodePath(out []byte, path string) ([]byte, bool) {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			if classes[c]&isTarget == 0 {
				return out, false
			}
			out = append(out, c)
			continue
		}
		if i+2 >= len(path) {
			return out, false
		}
		high, ok1 := hexDigit(path[i+1])
		low, ok2 := hexDigit(path[i+2])
		if !ok1 || !ok2 {
			return out, false
		}
		i += 2
		switch c = high<<4 | low; {
		case c == '/' || c == '\\' || c == 0:
			return out, false
		case classes[c]&isPlain != 0:
			out = append(out, c)
		default:
			const digits = "0123456789ABCDEF"
			out = append(out, '%', digits[high], digits[low])
		}
	}
	return out, true
}

// resolveDots merges slashes and resolves "." and ".." in place; the result never grows.
func resolveDots(path []byte) []byte {
	out := path[:0]
	for i := 0; i < len(path); {
		for i < len(path) && path[i] == '/' {
			i++
		}
		start := i
		for i < len(path) && path[i] != '/' {
			i++
		}
		last := i == len(path)
		switch segment := path[start:i]; {
		case len(segment) == 0 || string(segment) == ".":
			if last {
				out = append(out, '/')
			}
		case string(segment) == "..":
			out = parent(out)
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, '/')
			out = append(out, segment...) // copies down: out is never ahead of start
		}
	}
	return out
}

// parent cuts the last segment with its slash.
func parent(path []byte) []byte {
	if i := bytes.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return path
}
