// Package http2 carries HTTP/2 and gRPC: downstream in clear text with prior knowledge or under ALPN h2, upstream h2
// over mutual TLS or HTTP/1.1, whatever the cluster speaks. It also carries what came over HTTP/1.1 to clusters that
// speak HTTP/2 only: [Server.Carry].
//
// Framing, header compression and flow control are net/http's. A request takes the same way as one over HTTP/1.1, an
// forward.Call: route -> cluster -> host -> attempts, with the same limits, retries and reports. Both directions
// stream at the same time; trailers pass; a stream that is cut on one side is cut on the other. A request's body is
// kept up to a limit for as long as another attempt is possible, and a retry replays it.
//
// What the proxy itself answers to a gRPC request is a gRPC status in an HTTP 200 response (gRPC over HTTP/2,
// section "HTTP2 Transport Mapping").
//
//	stream -> normalise -> Allow (inbound) -> Call.Start -> Call.Next: host -> connection -> stream up -> relay -> Call.End
package http2
