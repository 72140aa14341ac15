package http2

import (
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/http1/message"
	"github.com/periplus-mesh/periplus/proxy/record"
	"github.com/periplus-mesh/periplus/proxy/route"
)

// normalize completes the query. False: the request has been answered.
func (x *stream) normalize() bool {
	path, _, ok := message.Normalize(nil, x.r.RequestURI)
	fields := fieldsOf(x.r.Header)
	switch {
	case !ok, x.r.Method == http.MethodConnect, !message.Sendable(x.r.Method, x.r.RequestURI, x.r.Host), !x.oneHost():
		return x.refuse(http.StatusBadRequest, "http2.invalid_request")
	case len(fields) > message.MaxFields:
		return x.refuse(http.StatusRequestHeaderFieldsTooLarge, "http2.too_many_headers")
	}
	for name := range x.r.Trailer {
		if !message.Trailing(name) {
			delete(x.r.Trailer, name) // before it has come, which is how net/http is told that nobody wants it
		}
	}
	x.record.Path = path
	x.query = route.Request{Authority: x.r.Host, Method: x.r.Method, Scheme: "http", Headers: fields,
		Source: x.downstream.Addr(), Random: rand.Uint64()}
	if x.conn.Peer.TLS {
		x.query.Scheme = "https"
	}
	x.query.SetPath(path)
	return true
}

// refuse answers what is not a request.
func (x *stream) refuse(status int, details string) bool {
	x.call.Reply = forward.Reply{Status: status, Flags: record.DownstreamProtocol, Body: http.StatusText(status), Details: details}
	x.reply()
	return false
}

// oneHost: a Host field beside :authority must say the same (RFC 9113, section 8.3.1), or who looks at one is told
// something else than who looks at the other.
func (x *stream) oneHost() bool {
	for _, host := range x.r.Header["Host"] {
		if !strings.EqualFold(host, x.r.Host) {
			return false
		}
	}
	return len(x.r.Header["Host"]) <= 1
}
