// Package inbound accepts connections from the mesh: it terminates mutual TLS with the proxy's own SVID, takes the
// peer's identity from the verified certificate and from nothing else, authorises, and hands on to package forward,
// which demands the resulting permit.
//
//	accept -> ClientHello -> filter chain -> handshake -> ALPN -> authorise -> application
//
// A connection ends when its peer's trust domain is trusted no more, one of TCP also when rules come that refuse it
// ([Inbound.Follow]); of HTTP every request is authorised (package forward).
//
// A chain without TLS serves plain text to whoever connects; its rules see a peer without identity.
package inbound
