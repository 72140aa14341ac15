// Package peer is who is at the other end of a connection to or from a global controller.
//
// [FromContext] and [FromRequest] read the identity that TLS verified; nothing else says who somebody is. [Pool]
// keeps one gRPC connection to each other replica and accepts only that replica at its end. [Gate] asks again, while
// a stream lives, whether its client is still admitted, and ends it when not: revocation does not wait for a
// reconnect. The package decides nothing about the mesh; what is admitted is the caller's function.
package peer
