// Package inbound accepts connections from the mesh: it terminates mutual TLS with the proxy's own SVID, takes the
// peer's identity from the verified certificate and from nothing else, authorises, and hands on to package forward,
// which demands the resulting permit.
//
//	accept -> ClientHello -> filter chain -> handshake -> ALPN -> authorise -> application
//
// A TCP connection is authorised again whenever the rules change, and ended if they refuse it ([Inbound.Follow]); of HTTP every
// request is (package forward).
//
// A chain without TLS serves plain text to whoever connects; its rules see a peer without identity.
package inbound
