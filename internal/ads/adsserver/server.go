package adsserver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// Server is an aggregated discovery service over the state S.
type Server[S any] struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	config  Config[S]
	metrics *serverMetrics
	open    atomic.Int64   // len(streams), read at each push
	work    sync.WaitGroup // goroutines of streams
	places  chan struct{}  // one for each stream that is being sent much

	mu      sync.Mutex // guards below
	last    uint64     // ID of the newest stream
	streams map[uint64]*stream[S]
}

// New panics if the configuration lacks State or Authorize.
func New[S any](c Config[S]) *Server[S] {
	if err := c.validate(); err != nil {
		panic(err)
	}
	return &Server[S]{
		config: c, metrics: newServerMetrics(c.Metrics), streams: make(map[uint64]*stream[S]),
		places: make(chan struct{}, c.LargeStreams),
	}
}

// Register adds the service to a gRPC server made with [ads.ServerOptions].
func (s *Server[S]) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Wait returns once every goroutine of the streams is gone; call it after the gRPC server was stopped.
func (s *Server[S]) Wait() { s.work.Wait() }

// Streams returns the status of every open stream, ordered by ID.
func (s *Server[S]) Streams() []StreamStatus {
	s.mu.Lock()
	streams := make([]*stream[S], 0, len(s.streams))
	for _, st := range s.streams {
		streams = append(streams, st)
	}
	s.mu.Unlock()
	slices.SortFunc(streams, func(a, b *stream[S]) int { return cmp.Compare(a.id, b.id) })
	status := make([]StreamStatus, len(streams))
	for i, st := range streams {
		status[i] = st.status()
	}
	return status
}

// wire is one gRPC stream of either protocol.
type wire struct {
	delta   bool
	ctx     context.Context // the stream's; grpc ends it when the handler returns
	header  func() error    // tells the client that it was accepted
	receive func() (received, error)
	frame   func(xds.Response) *ads.Message
	send    func(any) error // SendMsg
}

type received struct {
	xds.Request
	node *corev3.Node
}

// DeltaAggregatedResources implements the service.
func (s *Server[S]) DeltaAggregatedResources(g grpc.BidiStreamingServer[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]) error {
	return s.serve(wire{
		delta: true, ctx: g.Context(), header: func() error { return g.SendHeader(nil) },
		receive: func() (received, error) {
			m, err := g.Recv()
			return received{ads.DeltaRequest(m), m.GetNode()}, err
		},
		frame: ads.FrameDelta, send: g.SendMsg,
	})
}

// StreamAggregatedResources implements the service.
func (s *Server[S]) StreamAggregatedResources(g grpc.BidiStreamingServer[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]) error {
	return s.serve(wire{
		ctx: g.Context(), header: func() error { return g.SendHeader(nil) },
		receive: func() (received, error) {
			m, err := g.Recv()
			return received{ads.StateRequest(m), m.GetNode()}, err
		},
		frame: ads.FrameState, send: g.SendMsg,
	})
}

// serve supervises one stream. It waits for none of the stream's goroutines: one of them may be blocked by a client
// that does not read, which only ends when serve returns.
func (s *Server[S]) serve(w wire) error {
	select {
	case <-s.config.State.Ready():
	default:
		return status.Error(codes.Unavailable, "ads: state is not complete yet, use another control plane or retry")
	}
	requests, failed := make(chan received), make(chan error, 1)
	s.work.Go(func() { failed <- pump(w, requests) })
	st, first, err := s.accept(w, requests, failed)
	if err != nil {
		return err
	}
	s.add(st)
	defer s.remove(st)
	ended := make(chan error, 1)
	s.work.Go(func() { ended <- st.run(first, requests) })
	return st.supervise(failed, ended)
}

// pump hands over requests one by one, and closes the channel when the stream has ended; what is not taken stays with the
// client (HTTP/2 flow control).
func pump(w wire, requests chan<- received) error {
	defer close(requests)
	for {
		r, err := w.receive()
		if err != nil {
			return err
		}
		select {
		case requests <- r:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}

// accept waits for the first request and authorises its sender.
func (s *Server[S]) accept(w wire, requests <-chan received, failed <-chan error) (*stream[S], received, error) {
	timeout := time.NewTimer(s.config.AckTimeout)
	defer timeout.Stop()
	var first received
	select {
	case r, open := <-requests:
		if !open {
			return nil, first, <-failed
		}
		first = r
	case <-timeout.C:
		return nil, first, status.Error(codes.DeadlineExceeded, "ads: no request came")
	}
	if first.node == nil {
		first.node = &corev3.Node{}
	}
	if size := proto.Size(first.node); size > s.config.MaxNodeBytes {
		return nil, first, status.Errorf(codes.InvalidArgument, "ads: node takes %d bytes, the limit is %d", size, s.config.MaxNodeBytes)
	}
	who, err := peerOf(w.ctx)
	if err != nil {
		return nil, first, status.Errorf(codes.Unauthenticated, "ads: %v", err)
	}
	catalog, err := s.config.Authorize(w.ctx, who, first.node)
	if err != nil {
		return nil, first, refusal(who, err)
	}
	if err := w.header(); err != nil {
		return nil, first, err
	}
	return newStream(s, w, who, first.node.GetId(), catalog), first, nil
}

func refusal(who Peer, err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Errorf(codes.PermissionDenied, "ads: peer %q: %v", who.ID, err)
}

// peerOf is the identity of the verified certificate; zero if there is none.
func peerOf(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Peer{}, nil
	}
	id, err := trust.PeerID(info.State)
	if errors.Is(err, trust.ErrUnverified) {
		return Peer{}, nil
	}
	return Peer{ID: id}, err
}

func (s *Server[S]) add(st *stream[S]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	st.id = s.last
	s.streams[st.id] = st
	s.open.Add(1)
	s.metrics.streams.Inc()
}

func (s *Server[S]) remove(st *stream[S]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
	s.open.Add(-1)
	s.metrics.streams.Dec()
}

// interval is how long a stream is left alone after a push, so that all streams together stay within
// PushesPerSecond: changes that come in a storm are merged, the more so the more streams there are.
func (s *Server[S]) interval() time.Duration {
	return time.Duration(s.open.Load()) * time.Second / time.Duration(s.config.PushesPerSecond)
}
