// Package http1 is HTTP/1.1 for a proxy: connections, bodies, relaying and kept connections, without an allocation per
// request once a connection is warm. What the messages on them mean is package message's.
//
// A [Conn] is one connection with one read buffer. The strings of a request or response are views of that buffer and
// are valid until the next message is read from the same Conn, not a byte longer. A body is handed on in slices of the
// same buffer, decoded and framed anew.
//
//	ReadRequest -> Send to an upstream Conn -> ReadResponse -> Relay to the client -> next request on the same Conn
//
// A message that cannot be understood is answered 400 and ends its connection.
//
// It knows nothing of routes, clusters or identities, and starts no goroutine that outlives the call that started it.
package http1
