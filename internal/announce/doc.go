// Package announce makes a proxy an endpoint of its cluster: the client of WorkloadService.Announce.
//
// [Run] keeps one stream to the agent. The latest announcement goes out on every (re)connect and whenever it is
// superseded; ones in between are skipped. When the stream is lost it is dialled again with back-off and jitter,
// and a silent peer is noticed by keepalive. What the agent said last stands in Config.Status.
//
//	connect -> send the latest -> wait for a newer one, an answer, or the stream's end -> back off -> connect
//
// It never announces by itself that the caller goes away: set the health to DRAINING, wait until Status has
// acknowledged that announcement, then cancel.
package announce
