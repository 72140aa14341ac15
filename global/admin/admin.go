package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/api/periplus/v1/periplusv1connect"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/registry"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// MaxBodyBytes is the largest request.
const MaxBodyBytes = 1 << 20

// Replicas is the raft group; *replica.Replica is one.
type Replicas interface {
	registry.Proposer
	Members() []replica.Member
	Leader() string
	LeaderHeard() time.Time
	Applied() uint64
	Join(context.Context, replica.Member) error
	Leave(context.Context, string) error
}

// Config of the API. All fields but Policies, Static and Metrics are needed.
type Config struct {
	// ID of this replica.
	ID       string
	Domain   spiffeid.TrustDomain // of the control plane
	Store    *mesh.Store
	Replicas Replicas
	Registry *registry.Registry
	Board    *observe.Board
	// Policies serves the policy API; it asks peer.Author who calls. nil: unimplemented.
	Policies periplusv1connect.PolicyServiceHandler
	// Static serves the dashboard's files; nil: none.
	Static http.Handler
	// Metrics serves /metrics; nil: none.
	Metrics http.Handler
	Log     *slog.Logger
}

// API is both listeners' handlers.
type API struct {
	// Admin expects TLS that verified a client certificate if there was one.
	Admin http.Handler
	// Dashboard is read-only, for plain HTTP.
	Dashboard http.Handler
}

// server implements ClusterService and MeshService.
type server struct {
	Config
}

// New builds the handlers.
func New(c Config) (*API, error) {
	if c.Store == nil || c.Replicas == nil || c.Registry == nil || c.Board == nil || c.Log == nil || c.Domain.IsZero() {
		return nil, errors.New("admin: ID, Domain, Store, Replicas, Registry, Board and Log are needed")
	}
	if c.Policies == nil {
		c.Policies = periplusv1connect.UnimplementedPolicyServiceHandler{}
	}
	s := &server{c}
	services := s.services()
	return &API{
		Admin:     s.onlyOperators(http.MaxBytesHandler(services, MaxBodyBytes)),
		Dashboard: s.dashboard(services),
	}, nil
}

func (s *server) services() http.Handler {
	mux := http.NewServeMux()
	options := connect.WithHandlerOptions(connect.WithReadMaxBytes(MaxBodyBytes), connect.WithInterceptors(s.audit(), s.complete()))
	mux.Handle(periplusv1connect.NewClusterServiceHandler(s, options))
	mux.Handle(periplusv1connect.NewMeshServiceHandler(s, options))
	mux.Handle(periplusv1connect.NewPolicyServiceHandler(s.Policies, options))
	return mux
}

// onlyOperators refuses everybody else, and tells the handlers who calls.
func (s *server) onlyOperators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known, err := peer.WithOperator(r, s.Domain)
		if err != nil {
			s.Log.Warn("admin request refused", "audit", true, "peer", r.RemoteAddr, "path", r.URL.Path, "err", err)
			connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodePermissionDenied, err))
			return
		}
		next.ServeHTTP(w, known)
	})
}

// audit logs every call that may change something, with its author and outcome.
func (s *server) audit() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			if request.Spec().IdempotencyLevel == connect.IdempotencyNoSideEffects {
				return next(ctx, request)
			}
			author, ok := peer.Author(ctx)
			if !ok {
				return nil, connect.NewError(connect.CodePermissionDenied, errors.New("nothing can be changed without an operator's certificate"))
			}
			start := time.Now()
			response, err := next(ctx, request)
			s.Log.Info("admin call", "audit", true, "author", author, "procedure", request.Spec().Procedure, "took", time.Since(start), "err", err)
			return response, err
		}
	})
}

// stateWait is how long a call waits for a replica that has just started: with a leader it takes less, and the dashboard has
// the patience.
const stateWait = 3 * time.Second

// ofRaft are the calls about the raft group itself, which is there before the state is: they may be what brings it back.
var ofRaft = []string{
	periplusv1connect.MeshServiceListMembersProcedure, periplusv1connect.MeshServiceAddMemberProcedure, periplusv1connect.MeshServiceRemoveMemberProcedure,
}

// complete lets no call see a state of which a part has not come yet: what is there would seem not to exist.
func (s *server) complete() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			if !slices.Contains(ofRaft, request.Spec().Procedure) && !s.awaitState(ctx) {
				return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf(
					"controller %q has started and does not have the whole state yet; it gets it from a leader: ask another controller, or try again", s.ID))
			}
			return next(ctx, request)
		}
	})
}

func (s *server) awaitState(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, stateWait)
	defer cancel()
	select {
	case <-s.Store.Ready():
		return true
	case <-ctx.Done():
		return false
	}
}

// asError gives an error of the layers below the code that tells people what to do.
func asError(err error) error {
	code := connect.CodeInternal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replica.ErrNoLeader), errors.Is(err, replica.ErrUnknown):
		code = connect.CodeUnavailable
	case errors.Is(err, registry.ErrConflict):
		code = connect.CodeAlreadyExists
	case errors.Is(err, registry.ErrInvalid), errors.Is(err, replica.ErrRefused):
		code = connect.CodeInvalidArgument
	}
	return connect.NewError(code, err)
}

func invalid(err error) error { return connect.NewError(connect.CodeInvalidArgument, err) }

func (s *server) latest() *mesh.Snapshot {
	snapshot, _ := s.Store.Latest()
	return snapshot
}

var (
	_ periplusv1connect.ClusterServiceHandler = (*server)(nil)
	_ periplusv1connect.MeshServiceHandler    = (*server)(nil)
)
