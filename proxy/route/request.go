package route

import (
	"iter"
	"net/netip"
	"strings"
)

// Headers are a request's header fields in order, without those that end at this hop and without pseudo headers.
type Headers interface {
	Len() int
	At(i int) (name, value string)
}

// Request is what is matched on. Path is normalised.
type Request struct {
	Authority, Method, Scheme string
	Path                      string // without query
	Query                     string // without "?"
	Headers                   Headers
	Source                    netip.Addr // of the connection
	// Random is uniform; it decides fractions.
	Random uint64
}

// SetPath splits a normalised path with query.
func (r *Request) SetPath(path string) {
	r.Path, r.Query, _ = strings.Cut(path, "?")
}

// Value returns a header's value by lower-case name, several joined with "," as Envoy does, pseudo headers included.
func (r *Request) Value(name string) (string, bool) {
	if len(name) > 0 && name[0] == ':' {
		return r.pseudo(name)
	}
	value, found := "", false
	for i := range r.Headers.Len() {
		n, v := r.Headers.At(i)
		switch {
		case !EqualFold(n, name):
		case found:
			value += "," + v
		default:
			value, found = v, true
		}
	}
	if !found && name == "host" {
		return r.Authority, true
	}
	return value, found
}

// several tells whether a header occurs more than once.
func (r *Request) several(name string) bool {
	n := 0
	for i := range r.Headers.Len() {
		if header, _ := r.Headers.At(i); EqualFold(header, name) {
			n++
		}
	}
	return n > 1
}

// values of a header, one by one.
func (r *Request) values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range r.Headers.Len() {
			if n, v := r.Headers.At(i); EqualFold(n, name) && !yield(v) {
				return
			}
		}
	}
}

func (r *Request) pseudo(name string) (string, bool) {
	switch name {
	case ":method":
		return r.Method, true
	case ":authority":
		return r.Authority, true
	case ":scheme":
		return r.Scheme, true
	case ":path":
		if r.Query == "" {
			return r.Path, true
		}
		return r.Path + "?" + r.Query, true
	}
	return "", false
}

// EqualFold compares in ASCII, lengths first.
func EqualFold(a, b string) bool { return len(a) == len(b) && (a == b || strings.EqualFold(a, b)) }

// parameter returns the first value of a query parameter, not decoded, as Envoy.
func parameter(query, name string) (string, bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// cookie returns a cookie's value.
func (r *Request) cookie(name string) (string, bool) {
	all, _ := r.Value("cookie")
	for all != "" {
		var pair string
		pair, all, _ = strings.Cut(all, ";")
		if key, value, _ := strings.Cut(strings.TrimSpace(pair), "="); key == name {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}
