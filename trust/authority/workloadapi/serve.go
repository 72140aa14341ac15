package workloadapi

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// Config of the API.
type Config struct {
	Authority *ca.Authority
	// Life of an SVID whose entry names none.
	Life    time.Duration
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Server is a gRPC server of the API. Its connections must be unix sockets: others fail their handshake.
func Server(c Config) *grpc.Server {
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.Creds(peerCredentials{}))
	api := &workloadAPI{authority: c.Authority, life: c.Life, log: c.Log, metrics: newMetrics(c.Metrics)}
	workload.RegisterSpiffeWorkloadAPIServer(server, api)
	return server
}

type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	authority *ca.Authority
	life      time.Duration // of an SVID whose entry names none
	log       *slog.Logger
	metrics   *metrics
}

// FetchX509SVID streams the caller's SVIDs, each with a key made here.
func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	w := &wallet{api: a, held: make(map[string]*svid)}
	return follow(stream.Context(), a, w.response, stream.Send)
}

// FetchX509Bundles streams the bundles that the caller may use.
func (a *workloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, stream workload.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return follow(stream.Context(), a, a.bundles, stream.Send)
}

// follow sends what make makes of each new state, and again when the time comes that it returns; equal answers
// are sent once.
func follow[R proto.Message](ctx context.Context, a *workloadAPI, make func(*ca.State, []*types.Entry) (R, time.Time, error), send func(R) error) error {
	p, err := caller(ctx)
	if err != nil {
		return err
	}
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	held := p.selectors()
	var sent R
	for {
		s, next := a.authority.Watch()
		entries := entitled(s, held)
		if len(entries) == 0 {
			a.refuse(p)
			return status.Errorf(codes.PermissionDenied, "no identity issued: no registration entry matches this process (%s)", p)
		}
		answer, again, err := make(s, entries)
		if err != nil {
			return status.Errorf(codes.Unavailable, "authority: %v", err)
		}
		if !proto.Equal(answer, sent) {
			if err := send(answer); err != nil {
				return err
			}
			sent = answer
		}
		if err := wait(ctx, next, again); err != nil {
			return err
		}
	}
}

// lookAgain bounds a wait for the time to renew: a timer does not notice that the clock was set, nor that the machine
// slept, and certificates end by the clock.
const lookAgain = 10 * time.Second

// wait returns nil on the next state, at again or before it; zero again = never.
func wait(ctx context.Context, next <-chan struct{}, again time.Time) error {
	var alarm <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(min(time.Until(again), lookAgain))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-next:
	case <-alarm:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// caller demands the header that keeps confused deputies out (SPIFFE Workload Endpoint, section 3).
func caller(ctx context.Context) (process, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get("workload.spiffe.io"); len(values) != 1 || values[0] != "true" {
		return process{}, status.Error(codes.InvalidArgument, "security header missing from request: want workload.spiffe.io: true")
	}
	from, ok := peer.FromContext(ctx)
	if !ok {
		return process{}, status.Error(codes.Internal, "authority: connection without a peer")
	}
	p, ok := from.AuthInfo.(process)
	if !ok {
		return process{}, status.Errorf(codes.Internal, "authority: peer is a %T", from.AuthInfo)
	}
	return p, nil
}

func (p process) String() string {
	return fmt.Sprintf("pid %d uid %d gid %d path %q", p.pid, p.uid, p.gid, p.path)
}

func (a *workloadAPI) refuse(p process) {
	a.metrics.refused.Inc()
	a.log.Warn("workload API: no entry matches", "pid", p.pid, "uid", p.uid, "gid", p.gid, "path", p.path)
}

func (a *workloadAPI) bundles(s *ca.State, entries []*types.Entry) (*workload.X509BundlesResponse, time.Time, error) {
	all := federated(s, entries)
	all[a.authority.TrustDomain().IDString()] = s.RootsDER()
	return &workload.X509BundlesResponse{Bundles: all}, time.Time{}, nil
}

// federated are the foreign bundles that the entries federate with, as far as they are known.
func federated(s *ca.State, entries []*types.Entry) map[string][]byte {
	all := make(map[string][]byte)
	for _, e := range entries {
		for _, name := range e.FederatesWith {
			if b := s.Bundles[name]; b != nil {
				all["spiffe://"+name] = rootsDER(b)
			}
		}
	}
	return all
}

// rootsDER are the certificates of a foreign bundle as the Workload API carries them, one after the other.
func rootsDER(b *types.Bundle) []byte {
	var der []byte
	for _, c := range b.GetX509Authorities() {
		der = append(der, c.Asn1...)
	}
	return der
}

// svid is an issued identity, and when it is to be replaced.
type svid struct {
	*ca.SVID
	id       string
	signer   string // ID of the root
	revision int64  // of the entry
	renewAt  time.Time
	hint     string
}

// wallet is the SVIDs of one stream, by entry.
type wallet struct {
	api  *workloadAPI
	held map[string]*svid
}

func (w *wallet) response(s *ca.State, entries []*types.Entry) (*workload.X509SVIDResponse, time.Time, error) {
	answer := &workload.X509SVIDResponse{FederatedBundles: federated(s, entries)}
	bundle, keep := s.RootsDER(), make(map[string]*svid)
	var again time.Time
	for _, e := range entries {
		v, err := w.svid(s, e)
		if err != nil {
			return nil, again, err
		}
		keep[e.Id] = v
		if again.IsZero() || v.renewAt.Before(again) {
			again = v.renewAt
		}
		answer.Svids = append(answer.Svids, &workload.X509SVID{SpiffeId: v.id, X509Svid: v.Leaf, X509SvidKey: v.Key, Bundle: bundle, Hint: v.hint})
	}
	w.held = keep
	return answer, again, nil
}

// svid keeps the SVID it has while that is good, and otherwise issues another with a new key.
func (w *wallet) svid(s *ca.State, e *types.Entry) (*svid, error) {
	now := time.Now()
	if v := w.held[e.Id]; v != nil && v.revision == e.RevisionNumber && now.Before(v.renewAt) {
		if signer := s.Find(v.signer); signer != nil && !signer.Tainted() {
			return v, nil
		}
	}
	return w.api.issue(s, e, now)
}

func (a *workloadAPI) issue(s *ca.State, e *types.Entry, now time.Time) (*svid, error) {
	id, err := spiffeid.FromString("spiffe://" + e.SpiffeId.TrustDomain + e.SpiffeId.Path)
	if err != nil {
		return nil, err // entries are checked when they are made
	}
	order := ca.Order{ID: id, DNS: e.DnsNames, Life: a.life}
	if e.X509SvidTtl > 0 {
		order.Life = time.Duration(e.X509SvidTtl) * time.Second
	}
	signer := s.In(ca.Active)
	if signer == nil {
		return nil, ca.ErrExpired
	}
	issued, err := signer.Issue(order, now)
	if err != nil {
		return nil, err
	}
	a.metrics.issued.Inc()
	return &svid{
		SVID: issued, id: id.String(), signer: signer.ID(), revision: e.RevisionNumber, hint: e.Hint, renewAt: renewal(now, issued.NotAfter),
	}, nil
}

// renewal is just before half of the life, a little different for each SVID so that they spread. It is by the clock,
// as the life is, and not by the time that passes here (package time, "Monotonic Clocks").
func renewal(now, notAfter time.Time) time.Time {
	life := notAfter.Sub(now)
	return now.Add(life*2/5 - rand.N(life/20+1)).Round(0)
}
