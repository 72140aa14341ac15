// Package ads is Envoy's aggregated discovery service on the wire, as far as both of its ends agree on it: messages, their
// frames, and the limits and windows of a connection. Package adsserver answers streams, package adsclient keeps one.
//
//	adsserver: xds.Response -> [FrameDelta] or [FrameState] -> [Codec] -> gRPC
//	           gRPC -> [DeltaRequest] or [StateRequest] -> xds.Request
//	adsclient: xds.Request -> [DeltaMessage] -> gRPC
//
// A response is framed around bytes that were marshalled once and are shared by all streams; one that waits holds
// references to them and nothing else. Nothing here keeps a state, and nothing is interpreted.
package ads
