// Package ads is gRPC around package xds: the server and the client of Envoy's aggregated discovery service.
//
// A [Server] answers delta and state-of-the-world streams from one state S, through the [xds.Catalog] that its
// Authorize callback chose for the verified peer. Responses are framed around bytes that were marshalled once and
// are shared by all streams ([Codec]); a stream that waits holds references to them and nothing else. How many streams
// are sent a large part of the state at once is bounded, so that all clients may connect together. Nothing is queued: a stream that is slow, or paced because many changes come
// at once, skips states and is sent the difference to the newest one.
//
// [Run] is the client: one delta stream, kept alive over an ordered list of targets, resumed by
// initial_resource_versions, with the last good set of resources on disk.
//
//	server, per stream: request -> session.Request; newer state -> session.Advance; session.Next -> send
//	client:             connect to the first target that answers -> receive -> Apply -> ACK or NACK -> disk
//
// It never decides what a client may see and never interprets resources, beyond the names that follow from
// clusters and listeners.
package ads
