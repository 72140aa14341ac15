package adsserver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// State is the versioned state that a server serves from; *mesh.Store is one.
type State[S any] interface {
	// Latest returns the newest state and a channel that closes when it is superseded.
	Latest() (S, <-chan struct{})
	// Ready is closed once "not there" means "does not exist". Streams are refused as unavailable before.
	Ready() <-chan struct{}
}

// Peer is who is at the other end, from the verified certificate. The zero ID: the connection has none.
type Peer struct{ ID spiffeid.ID }

// Config is what a [Server] needs. State and Authorize are required.
type Config[S any] struct {
	State State[S]
	// Authorize is called once per stream with the node of its first request; node is never nil. It chooses what
	// the stream may see. An error ends the stream: a gRPC status as it is, anything else as permission denied.
	Authorize func(ctx context.Context, peer Peer, node *corev3.Node) (xds.Catalog[S], error)
	// Log; nil discards.
	Log *slog.Logger
	// Metrics; nil registers nothing.
	Metrics prometheus.Registerer
	// PushesPerSecond bounds the pushes caused by changes, over all streams: with n streams, each is left alone for
	// n/PushesPerSecond after a push, and then sent everything at once. 0: 10 000. A lone change is not delayed.
	PushesPerSecond int
	// RequestsPerSecond bounds the requests read from one stream, not counting answers to responses. More are not
	// refused but read later. 0: 20, in bursts of twice that.
	RequestsPerSecond int
	// AckTimeout is how long a response may stay unanswered before the stream is ended. 0: 60 s.
	AckTimeout time.Duration
	// LargeStreams bounds how many streams are sent a large part of the state at once; the others wait for up to 10 s.
	// It bounds the memory that is needed when all clients connect together. 0: 256.
	LargeStreams int
	// MaxNodeBytes bounds the encoded node of the first request. 0: 64 KiB.
	MaxNodeBytes int
}

func (c *Config[S]) validate() error {
	if c.State == nil || c.Authorize == nil {
		return errors.New("ads: server: State and Authorize are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.PushesPerSecond, 10_000)
	setDefault(&c.RequestsPerSecond, 20)
	setDefault(&c.AckTimeout, 60*time.Second)
	setDefault(&c.LargeStreams, 256)
	setDefault(&c.MaxNodeBytes, 64<<10)
	return nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
