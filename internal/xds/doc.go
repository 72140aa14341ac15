// Package xds is the xDS transport protocol without I/O: sessions that turn requests into responses and back.
//
// A [ServerSession] is one stream's server end, delta or state of the world; a [ClientSession] a delta stream's
// client end. Versions are content hashes, so a client resumes on any replica and is re-sent nothing that it has.
//
// The server delivers in rounds. A round belongs to one state: everything that differs from what the client has is
// sent in the order of one table (clusters, endpoints, listeners, routes, then what is gone), so that nothing refers
// to what is not there yet. States that come meanwhile are only remembered; the next round takes the newest, and the
// cost of a round grows with what changed ([Catalog.Changed]), not with what exists. One response per type is in
// flight; a rejected version is not sent again until the content changes.
//
//	session.Request(r)   // subscribe, unsubscribe, acknowledge, reject
//	session.Advance(s)   // newer state; older ones are simply skipped
//	for response, ok := session.Next(); ok; response, ok = session.Next() { send(response) }
//
// Nothing here reads a clock, knows a connection or decides what a client may see: that is its [Catalog].
// See https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
package xds
