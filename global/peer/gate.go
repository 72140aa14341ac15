package peer

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust"
)

// Gate admits clients by what the state says now, not by what it said when they connected. Clients without a
// certificate pass: the handlers that need one refuse them.
type Gate struct {
	// Admit says why a verified client is refused, or nil. It must be cheap.
	Admit func(Identity) error
	// Every is how often living streams are asked again; 0 is 1 s.
	Every time.Duration

	mu      sync.Mutex
	streams map[*gatedStream]struct{} // guarded by mu
}

// Unary is a grpc.UnaryServerInterceptor.
func (g *Gate) Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := g.admit(ctx); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor. A stream whose client is refused later has its context cancelled.
func (g *Gate) Stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := g.admit(stream.Context()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	gated := &gatedStream{stream, ctx, cancel}
	g.add(gated)
	defer g.remove(gated)
	err := handle(server, gated)
	if cause := context.Cause(ctx); cause != nil && stream.Context().Err() == nil {
		return cause
	}
	return err
}

// Run asks again until ctx is done.
func (g *Gate) Run(ctx context.Context) error {
	every := g.Every
	if every == 0 {
		every = time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			g.recheck()
		}
	}
}

func (g *Gate) recheck() {
	g.mu.Lock()
	streams := make([]*gatedStream, 0, len(g.streams))
	for s := range g.streams {
		streams = append(streams, s)
	}
	g.mu.Unlock()
	for _, s := range streams {
		if err := g.admit(s.ctx); err != nil {
			s.cancel(err)
		}
	}
}

func (g *Gate) admit(ctx context.Context) error {
	identity, err := FromContext(ctx)
	if errors.Is(err, trust.ErrUnverified) {
		return nil
	}
	if err == nil {
		err = g.Admit(identity)
	}
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

func (g *Gate) add(s *gatedStream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams == nil {
		g.streams = make(map[*gatedStream]struct{})
	}
	g.streams[s] = struct{}{}
}

func (g *Gate) remove(s *gatedStream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.streams, s)
}

type gatedStream struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (s *gatedStream) Context() context.Context { return s.ctx }

// RecvMsg returns early when the gate closes, so that a handler that only receives ends as well.
func (s *gatedStream) RecvMsg(m any) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return s.ServerStream.RecvMsg(m)
}
