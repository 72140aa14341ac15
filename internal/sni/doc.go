// Package sni reads the server name of a TLS connection without ending it.
//
// [Peek] reads a ClientHello from a connection, over as many TCP segments and TLS records as it takes, and at most
// 16 KiB. What it read can be replayed, so TLS passes through untouched. It keeps no more of a slow connection than
// what has arrived, sets no deadline (the caller does, before), writes nothing and never panics on what it reads.
//
//	conn.SetReadDeadline(...)            // bounds a slow client
//	hello, peeked, err := sni.Peek(conn)
//	upstream.Write(peeked)               // then copy conn itself, which stays splice(2)-able
//
// or, for who wants to read from the start: tls.Server(sni.Replay(conn, peeked), config).
package sni
