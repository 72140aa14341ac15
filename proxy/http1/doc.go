// Package http1 is HTTP/1.1 for a proxy: heads, framing, relaying and kept connections, without an allocation per
// request once a connection is warm.
//
// A [Conn] is one connection with one read buffer. A head is parsed where it was read: the strings of a [Request]
// or [Response] are views of that buffer and are valid until the next message is read from the same Conn, not a
// byte longer. A body is handed on in slices of the same buffer; what is sent is written by us from what was
// understood, never copied through: framing, Host, request target and the hop-by-hop fields are always our own.
//
//	ReadRequest -> Send to an upstream Conn -> ReadResponse -> Relay to the client -> next request on the same Conn
//
// The parser is a security boundary. It accepts less than the RFCs allow: whatever it accepts, net/http reads as the
// same request, and whatever two parsers are known to disagree on (RFC 9112, section 11.2) is refused with an error
// that is answered 400 and ends the connection. [Normalize] makes the one path that is authorised, matched and
// forwarded.
//
// It knows nothing of routes, clusters or identities, and starts no goroutine that outlives the call that started it.
package http1
