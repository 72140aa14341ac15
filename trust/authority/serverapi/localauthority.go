package serverapi

import (
	"context"

	api "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// localAuthorityAPI rotates roots by hand: prepare, activate, taint, revoke, in that order.
type localAuthorityAPI struct {
	api.UnimplementedLocalAuthorityServer
	server
}

func (a *localAuthorityAPI) GetX509AuthorityState(context.Context, *api.GetX509AuthorityStateRequest) (*api.GetX509AuthorityStateResponse, error) {
	s := a.authority.Latest()
	return &api.GetX509AuthorityStateResponse{Active: describe(s.In(ca.Active)), Prepared: describe(s.In(ca.Prepared)), Old: describe(s.In(ca.Old))}, nil
}

func describe(r *ca.Root) *api.AuthorityState {
	if r == nil {
		return nil
	}
	return &api.AuthorityState{AuthorityId: r.ID(), ExpiresAt: r.NotAfter().Unix()}
}

func (a *localAuthorityAPI) PrepareX509Authority(context.Context, *api.PrepareX509AuthorityRequest) (*api.PrepareX509AuthorityResponse, error) {
	fresh, err := a.authority.NewRoot()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	r, err := a.change("prepare", func(s *ca.State) (*ca.Root, error) {
		s.Prepare(fresh)
		return s.In(ca.Prepared), nil
	})
	return &api.PrepareX509AuthorityResponse{PreparedAuthority: describe(r)}, err
}

func (a *localAuthorityAPI) ActivateX509Authority(_ context.Context, q *api.ActivateX509AuthorityRequest) (*api.ActivateX509AuthorityResponse, error) {
	r, err := a.change("activate", func(s *ca.State) (*ca.Root, error) {
		if _, err := demand(s, q.AuthorityId, ca.Prepared); err != nil {
			return nil, err
		}
		err := s.Activate()
		return s.In(ca.Active), err
	})
	return &api.ActivateX509AuthorityResponse{ActivatedAuthority: describe(r)}, err
}

func (a *localAuthorityAPI) TaintX509Authority(_ context.Context, q *api.TaintX509AuthorityRequest) (*api.TaintX509AuthorityResponse, error) {
	r, err := a.change("taint", func(s *ca.State) (*ca.Root, error) {
		r, err := demand(s, q.AuthorityId, ca.Old)
		if err != nil {
			return nil, err
		}
		if r.Tainted() {
			return nil, status.Errorf(codes.Internal, "X.509 authority %q is tainted already", q.AuthorityId)
		}
		s.Taint(r)
		return r, nil
	})
	return &api.TaintX509AuthorityResponse{TaintedAuthority: describe(r)}, err
}

func (a *localAuthorityAPI) RevokeX509Authority(_ context.Context, q *api.RevokeX509AuthorityRequest) (*api.RevokeX509AuthorityResponse, error) {
	r, err := a.change("revoke", func(s *ca.State) (*ca.Root, error) {
		r, err := demand(s, q.AuthorityId, ca.Old)
		if err != nil {
			return nil, err
		}
		if !r.Tainted() {
			return nil, status.Error(codes.Internal, "an untainted authority cannot be revoked: taint it first, so that its SVIDs are renewed")
		}
		s.Revoke(r)
		return r, nil
	})
	return &api.RevokeX509AuthorityResponse{RevokedAuthority: describe(r)}, err
}

// demand finds the root by ID and insists on its phase.
func demand(s *ca.State, id string, p ca.Phase) (*ca.Root, error) {
	r := s.Find(id)
	switch {
	case r == nil:
		return nil, status.Errorf(codes.InvalidArgument, "no X.509 authority has the ID %q", id)
	case r.Phase() != p:
		return nil, status.Errorf(codes.InvalidArgument, "X.509 authority %q is %s, not %s", id, r.Phase(), p)
	}
	return r, nil
}

func (a *localAuthorityAPI) change(what string, change func(*ca.State) (*ca.Root, error)) (r *ca.Root, err error) {
	err = a.authority.Update(func(s *ca.State) error {
		r, err = change(s)
		return err
	})
	if err != nil {
		return nil, asStatus(err)
	}
	a.log.Info("X.509 authority changed by hand", "action", what, "authority", r.ID())
	return r, nil
}
