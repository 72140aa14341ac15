package adsserver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
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
	work    sync.WaitGroup // goroutines of streams
	places  chan struct{}  // one for each stream that is being sent much
	waves   waves[S]

	mu      sync.Mutex // guards below
	last    uint64     // ID of the newest stream
	streams map[uint64]*stream[S]
}

// New panics if the configuration lacks State or Authorize.
func New[S any](c Config[S]) *Server[S] {
	if err := c.validate(); err != nil {
		panic(err)
	}
	s := &Server[S]{
		config: c, metrics: newServerMetrics(c.Metrics), streams: make(map[uint64]*stream[S]),
		places: make(chan struct{}, c.LargeStreams),
	}
	s.waves.source, s.waves.pushes, s.waves.work = c.State, c.PushesPerSecond, &s.work
	return s
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
	firsts, accepted, ended := make(chan received, 1), make(chan *stream[S], 1), make(chan error, 2)
	defer close(accepted)
	s.work.Go(func() { ended <- read(w, firsts, accepted) })
	first, err := s.first(firsts, ended)
	if err != nil {
		return err
	}
	st, err := s.accept(w, first)
	if err != nil {
		return err
	}
	defer s.remove(st)
	accepted <- st
	s.work.Go(func() { ended <- st.follow() })
	return st.supervise(ended)
}

// read hands over the first request, and reads on if a stream is made for it.
func read[S any](w wire, firsts chan<- received, accepted <-chan *stream[S]) error {
	first, err := w.receive()
	if err != nil {
		return err
	}
	firsts <- first
	if st := <-accepted; st != nil {
		return st.read(first)
	}
	return nil
}

// first waits for the first request.
func (s *Server[S]) first(firsts <-chan received, failed <-chan error) (received, error) {
	timeout := time.NewTimer(s.config.AckTimeout)
	defer timeout.Stop()
	select {
	case first := <-firsts:
		return first, nil
	case err := <-failed:
		return received{}, err
	case <-timeout.C:
		return received{}, status.Error(codes.DeadlineExceeded, "ads: no request came")
	}
}

// accept authorises the sender of the first request, and begins its stream.
func (s *Server[S]) accept(w wire, first received) (*stream[S], error) {
	if first.node == nil {
		first.node = &corev3.Node{}
	}
	if size := proto.Size(first.node); size > s.config.MaxNodeBytes {
		return nil, status.Errorf(codes.InvalidArgument, "ads: node takes %d bytes, the limit is %d", size, s.config.MaxNodeBytes)
	}
	who, err := peerOf(w.ctx)
	if err != nil {
		return nil, status.Errorf(codes.Unauthenticated, "ads: %v", err)
	}
	catalog, err := s.config.Authorize(w.ctx, who, first.node)
	if err != nil {
		return nil, refusal(who, err)
	}
	if err := w.header(); err != nil {
		return nil, err
	}
	s.waves.join()
	st := newStream(s, w, who, first.node.GetId(), catalog)
	s.add(st)
	return st, nil
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
	s.metrics.streams.Inc()
}

func (s *Server[S]) remove(st *stream[S]) {
	s.waves.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
	s.metrics.streams.Dec()
}
