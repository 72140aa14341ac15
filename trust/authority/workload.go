package authority

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// workloadAPI is the SPIFFE Workload API's X.509 half; the rest answers Unimplemented.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	keeper  *keeper
	life    time.Duration // of an SVID whose entry names none
	log     *slog.Logger
	metrics *metrics
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
func follow[R proto.Message](ctx context.Context, a *workloadAPI, make func(*state, []*types.Entry) (R, time.Time, error), send func(R) error) error {
	p, err := caller(ctx)
	if err != nil {
		return err
	}
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	held := p.selectors()
	var sent R
	for {
		s, next := a.keeper.latest.Get()
		entries := s.entitled(held)
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

// wait returns nil on the next state or at again; zero again = never.
func wait(ctx context.Context, next <-chan struct{}, again time.Time) error {
	var alarm <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(time.Until(again))
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

func (a *workloadAPI) bundles(s *state, entries []*types.Entry) (*workload.X509BundlesResponse, time.Time, error) {
	all := federated(s, entries)
	all[a.keeper.domain.IDString()] = s.ownDER()
	return &workload.X509BundlesResponse{Bundles: all}, time.Time{}, nil
}

func (s *state) ownDER() []byte {
	var der [][]byte
	for _, r := range s.roots {
		der = append(der, r.certificate.Raw)
	}
	return bytes.Join(der, nil)
}

// federated are the foreign bundles that the entries federate with, as far as they are known.
func federated(s *state, entries []*types.Entry) map[string][]byte {
	all := make(map[string][]byte)
	for _, e := range entries {
		for _, name := range e.FederatesWith {
			if b := s.bundles[name]; b != nil {
				all["spiffe://"+name] = rootsDER(b)
			}
		}
	}
	return all
}

// wallet is the SVIDs of one stream, by entry.
type wallet struct {
	api  *workloadAPI
	held map[string]*svid
}

func (w *wallet) response(s *state, entries []*types.Entry) (*workload.X509SVIDResponse, time.Time, error) {
	answer := &workload.X509SVIDResponse{FederatedBundles: federated(s, entries)}
	bundle, keep := s.ownDER(), make(map[string]*svid)
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
		answer.Svids = append(answer.Svids, &workload.X509SVID{SpiffeId: v.id, X509Svid: v.leaf, X509SvidKey: v.key, Bundle: bundle, Hint: v.hint})
	}
	w.held = keep
	return answer, again, nil
}

// svid keeps the SVID it has while that is good, and otherwise issues another with a new key.
func (w *wallet) svid(s *state, e *types.Entry) (*svid, error) {
	now := time.Now()
	if v := w.held[e.Id]; v != nil && v.revision == e.RevisionNumber && now.Before(v.renewAt) {
		if signer := s.find(v.signer); signer != nil && !signer.tainted {
			return v, nil
		}
	}
	return w.api.issue(s, e, now)
}

func (a *workloadAPI) issue(s *state, e *types.Entry, now time.Time) (*svid, error) {
	id, err := spiffeid.FromString("spiffe://" + e.SpiffeId.TrustDomain + e.SpiffeId.Path)
	if err != nil {
		return nil, err // entries are checked when they are made
	}
	o := order{id: id, dns: e.DnsNames, life: a.life}
	if e.X509SvidTtl > 0 {
		o.life = time.Duration(e.X509SvidTtl) * time.Second
	}
	signer := s.in(active)
	if signer == nil {
		return nil, errExpired
	}
	leaf, key, notAfter, err := signer.issue(o, now)
	if err != nil {
		return nil, err
	}
	a.metrics.issued.Inc()
	return &svid{
		id: id.String(), leaf: leaf, key: key, signer: signer.id(), revision: e.RevisionNumber, hint: e.Hint,
		renewAt: renewal(now, notAfter),
	}, nil
}

// renewal is just before half of the life, a little different for each SVID so that they spread.
func renewal(now, notAfter time.Time) time.Time {
	life := notAfter.Sub(now)
	return now.Add(life*2/5 - rand.N(life/20+1))
}

// names lists keys in order, for answers that must not change by themselves.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
