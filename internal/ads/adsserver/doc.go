// Package adsserver is the server of the aggregated discovery service: gRPC streams around the sessions of package xds.
//
// A [Server] answers delta and state-of-the-world streams from one state S, through the [xds.Catalog] that its
// Authorize callback chose for the verified peer. All streams are given a new state together, as a wave; the waves of a
// storm of changes are paced. Nothing is queued: a stream that is slow skips states and is sent the difference to the
// newest one. A client that does not answer, or does not even read, is let go. How many streams are sent a large part
// of the state at once is bounded, so that all clients may connect together.
//
//	state -> wave -> every stream
//	per stream: request -> session.Request; wave -> session.Advance; session.Next -> frame -> send
//
// It never decides what a client may see, and never interprets resources.
package adsserver
