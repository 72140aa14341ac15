package authority

import (
	"context"
	"time"

	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// localAuthorityAPI rotates roots by hand: prepare, activate, taint, revoke, in that order.
type localAuthorityAPI struct {
	api.UnimplementedLocalAuthorityServer
	keeper *keeper
	life   time.Duration // of a root
}

func (a *localAuthorityAPI) GetX509AuthorityState(context.Context, *api.GetX509AuthorityStateRequest) (*api.GetX509AuthorityStateResponse, error) {
	s := a.keeper.latest.Latest()
	return &api.GetX509AuthorityStateResponse{Active: describe(s.in(active)), Prepared: describe(s.in(prepared)), Old: describe(s.in(old))}, nil
}

func describe(r *root) *api.AuthorityState {
	if r == nil {
		return nil
	}
	return &api.AuthorityState{AuthorityId: r.id(), ExpiresAt: r.certificate.NotAfter.Unix()}
}

func (a *localAuthorityAPI) PrepareX509Authority(context.Context, *api.PrepareX509AuthorityRequest) (*api.PrepareX509AuthorityResponse, error) {
	fresh, err := newRoot(a.keeper.domain, time.Now(), a.life)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	r, err := a.change("prepare", func(s *state) (*root, error) {
		s.prepare(fresh)
		return s.in(prepared), nil
	})
	return &api.PrepareX509AuthorityResponse{PreparedAuthority: describe(r)}, err
}

func (a *localAuthorityAPI) ActivateX509Authority(_ context.Context, q *api.ActivateX509AuthorityRequest) (*api.ActivateX509AuthorityResponse, error) {
	r, err := a.change("activate", func(s *state) (*root, error) {
		if _, err := demand(s, q.AuthorityId, prepared); err != nil {
			return nil, err
		}
		return s.find(q.AuthorityId).in(active), s.activate()
	})
	return &api.ActivateX509AuthorityResponse{ActivatedAuthority: describe(r)}, err
}

func (a *localAuthorityAPI) TaintX509Authority(_ context.Context, q *api.TaintX509AuthorityRequest) (*api.TaintX509AuthorityResponse, error) {
	r, err := a.change("taint", func(s *state) (*root, error) {
		r, err := demand(s, q.AuthorityId, old)
		if err != nil {
			return nil, err
		}
		if r.tainted {
			return nil, status.Errorf(codes.Internal, "X.509 authority %q is tainted already", q.AuthorityId)
		}
		s.replace(r.taint())
		return r, nil
	})
	return &api.TaintX509AuthorityResponse{TaintedAuthority: describe(r)}, err
}

func (a *localAuthorityAPI) RevokeX509Authority(_ context.Context, q *api.RevokeX509AuthorityRequest) (*api.RevokeX509AuthorityResponse, error) {
	r, err := a.change("revoke", func(s *state) (*root, error) {
		r, err := demand(s, q.AuthorityId, old)
		if err != nil {
			return nil, err
		}
		if !r.tainted {
			return nil, status.Error(codes.Internal, "an untainted authority cannot be revoked: taint it first, so that its SVIDs are renewed")
		}
		s.remove(func(x *root) bool { return x == r })
		return r, nil
	})
	return &api.RevokeX509AuthorityResponse{RevokedAuthority: describe(r)}, err
}

// demand finds the root by ID and insists on its phase.
func demand(s *state, id string, p phase) (*root, error) {
	r := s.find(id)
	switch {
	case r == nil:
		return nil, status.Errorf(codes.InvalidArgument, "no X.509 authority has the ID %q", id)
	case r.phase != p:
		return nil, status.Errorf(codes.InvalidArgument, "X.509 authority %q is %s, not %s", id, r.phase, p)
	}
	return r, nil
}

func (a *localAuthorityAPI) change(what string, change func(*state) (*root, error)) (r *root, err error) {
	err = a.keeper.update(func(s *state) error {
		r, err = change(s)
		return err
	})
	if err != nil {
		return nil, asStatus(err)
	}
	a.keeper.log.Info("X.509 authority changed by hand", "action", what, "authority", r.id())
	return r, nil
}

// asStatus leaves a status as it is and makes Internal of any other error.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, is := status.FromError(err); is {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}
