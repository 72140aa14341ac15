package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

// Identity is a verified client.
type Identity struct {
	ID   spiffeid.ID
	Leaf *x509.Certificate
	// Authority is the replica that issued Leaf; "" if none did, but the control plane's root or a cluster's.
	Authority string
	Address   string // host:port, for logs and limits
}

// FromContext returns the verified client of a gRPC call; [trust.ErrUnverified] if it presented no certificate.
func FromContext(ctx context.Context) (Identity, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return Identity{}, trust.ErrUnverified
	}
	identity := Identity{Address: p.Addr.String()}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return identity, trust.ErrUnverified
	}
	return identity, identity.read(info.State)
}

func (i *Identity) read(state tls.ConnectionState) (err error) {
	if i.ID, err = trust.PeerID(state); err != nil {
		return err
	}
	i.Leaf, i.Authority = state.PeerCertificates[0], pki.Authority(state.PeerCertificates)
	return i.mayBeIssued()
}

// mayBeIssued refuses what a replica's intermediate could sign but must not: another replica, and operators.
func (i *Identity) mayBeIssued() error {
	role, name, err := mesh.ParsePlaneIdentity(i.ID)
	switch {
	case err != nil || i.Authority == "" || role == mesh.RoleAgent:
		return nil
	case role == mesh.RoleController && name == i.Authority:
		return nil
	}
	return fmt.Errorf("%q was issued by replica %q, which may not", i.ID, i.Authority)
}

// Bound is config that also refuses what a replica may not have issued; see [Identity].
func Bound(config *tls.Config) *tls.Config {
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verify(state); err != nil || len(state.PeerCertificates) == 0 {
			return err
		}
		return new(Identity).read(state)
	}
	return config
}

// Plane returns the name in an identity of the given role in the control plane's trust domain, or says what else
// the client is.
func (i Identity) Plane(domain spiffeid.TrustDomain, want mesh.PlaneRole) (name string, err error) {
	role, name, err := mesh.ParsePlaneIdentity(i.ID)
	switch {
	case i.ID.TrustDomain() != domain:
		return "", fmt.Errorf("%q is not of the control plane's trust domain %q", i.ID, domain.Name())
	case err != nil:
		return "", err
	case role != want:
		return "", fmt.Errorf("%q is not %s", i.ID, roleNames[want])
	}
	return name, nil
}

var roleNames = map[mesh.PlaneRole]string{
	mesh.RoleController: "a controller", mesh.RoleAgent: "a cluster's agent", mesh.RoleOperator: "an operator",
}

// OnlyController accepts replica id of the control plane only; an empty id accepts any replica.
func OnlyController(domain spiffeid.TrustDomain, id string) trust.Authorizer {
	return func(peer spiffeid.ID) error {
		name, err := Identity{ID: peer}.Plane(domain, mesh.RoleController)
		if err == nil && id != "" && name != id {
			err = fmt.Errorf("%q is not replica %q", peer, id)
		}
		return err
	}
}

type authorKey struct{}

// WithOperator puts the operator that TLS verified into the request's context, for [Author]; it fails for
// everybody else.
func WithOperator(r *http.Request, domain spiffeid.TrustDomain) (*http.Request, error) {
	if r.TLS == nil {
		return nil, trust.ErrUnverified
	}
	identity := Identity{Address: r.RemoteAddr}
	if err := identity.read(*r.TLS); err != nil {
		return nil, err
	}
	if _, err := identity.Plane(domain, mesh.RoleOperator); err != nil {
		return nil, err
	}
	return r.WithContext(context.WithValue(r.Context(), authorKey{}, identity)), nil
}

// Author is the SPIFFE ID of the operator who makes the call; false on a listener that knows none, where nothing
// may be changed.
func Author(ctx context.Context) (string, bool) {
	identity, ok := ctx.Value(authorKey{}).(Identity)
	return identity.ID.String(), ok
}
