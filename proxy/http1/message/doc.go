// Package message is the syntax of HTTP/1.1's messages: heads, their fields, framing and paths, parsed and written. It
// is pure: bytes in, bytes out, and no connection.
//
// A head is parsed where it was read: the strings of a [Request] or [Response] are views of that buffer and are valid
// as long as its bytes are, see [View]. What is written is made of what was understood, never copied through: framing,
// Host, request target and the hop-by-hop fields are always our own.
//
//	Scan: where the head ends -> ParseRequest: fields, host, framing, path -> Edit -> AppendRequest
//
// The parser is a security boundary. It accepts less than the RFCs allow: whatever it accepts, net/http reads as the
// same request, and whatever two parsers are known to disagree on (RFC 9112, section 11.2) is refused with an error
// that is answered 400 and ends the connection. [Normalize] makes the one path that is authorised, matched and
// forwarded. What comes by HTTP/2 is held to the same: [Sendable], [Normalize], [Trailing].
package message
