package adsserver

import (
	"time"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// StreamStatus is one open stream, for proxy-status.
type StreamStatus struct {
	ID        uint64
	Peer      Peer
	NodeID    string // as the client calls itself; proves nothing
	Delta     bool   // else state of the world
	Connected time.Time
	// Types that were requested, in order of delivery.
	Types []TypeStatus
}

// TypeStatus is one type on a stream.
type TypeStatus struct {
	xds.TypeStatus
	// LastAck is when the client last accepted a response; zero: never.
	LastAck time.Time
}
