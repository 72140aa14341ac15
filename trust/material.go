package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Material is one version of a process's own identity and of the domains that it can verify. Immutable.
type Material struct {
	ID          spiffeid.ID
	Certificate *tls.Certificate // chain, key and parsed leaf
	// Bundles are the roots of each trust domain. They are never merged.
	Bundles map[spiffeid.TrustDomain][]*x509.Certificate
}

// Source yields the latest material, which is never nil, and a channel that closes when it is superseded.
// A *watch.Value[*Material] that was given its first material is a Source.
type Source interface {
	Get() (*Material, <-chan struct{})
}

// Authorizer refuses a verified SPIFFE ID with an error that says why.
type Authorizer func(spiffeid.ID) error

// AuthorizeAny accepts every verified identity: the caller decides later, with [PeerID].
func AuthorizeAny(spiffeid.ID) error { return nil }

// AuthorizeOneOf accepts exactly these identities.
func AuthorizeOneOf(ids ...spiffeid.ID) Authorizer {
	return func(id spiffeid.ID) error {
		for _, want := range ids {
			if id == want {
				return nil
			}
		}
		return fmt.Errorf("peer is %q, want one of %q", id, ids)
	}
}

// ErrUnverified is returned for a peer that presented no certificate.
var ErrUnverified = errors.New("peer presented no certificate")

// ServerConfig requires and verifies a client certificate. TLS 1.3 only.
func ServerConfig(source Source, authorize Authorizer) *tls.Config {
	config := optionalClient(source, authorize)
	config.ClientAuth = tls.RequireAnyClientCert
	return config
}

// OptionalClientConfig verifies a client certificate if one is presented; the handler must ask [PeerID].
func OptionalClientConfig(source Source, authorize Authorizer) *tls.Config {
	return optionalClient(source, authorize)
}

func optionalClient(source Source, authorize Authorizer) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			material, _ := source.Get()
			return material.Certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil // ClientAuth has refused it already where one is required
			}
			return verify(source, state, authorize)
		},
	}
}

// ClientConfig presents the own SVID and verifies the server by SPIFFE ID; host names do not count. TLS 1.3 only.
func ClientConfig(source Source, authorize Authorizer) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by VerifyConnection: SPIFFE verifies identities, not host names
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			material, _ := source.Get()
			return material.Certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error { return verify(source, state, authorize) },
	}
}

// verify runs on resumed handshakes too (crypto/tls: VerifyConnection), so a withdrawn root ends resumption.
func verify(source Source, state tls.ConnectionState, authorize Authorizer) error {
	material, _ := source.Get()
	id, err := material.Verify(state.PeerCertificates)
	if err != nil {
		return err
	}
	if err := authorize(id); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	return nil
}

// Verify checks a chain, leaf first, against the bundle of the leaf's own trust domain (X509-SVID, section 5).
func (m *Material) Verify(chain []*x509.Certificate) (spiffeid.ID, error) {
	if len(chain) == 0 {
		return spiffeid.ID{}, ErrUnverified
	}
	id, err := LeafID(chain[0])
	if err != nil {
		return id, err
	}
	bundle, ok := m.Bundles[id.TrustDomain()]
	if !ok {
		return spiffeid.ID{}, fmt.Errorf("peer %q: trust domain %q is not federated", id, id.TrustDomain().Name())
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range bundle {
		roots.AddCert(root)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("peer %q: %w", id, err)
	}
	return id, nil
}

// LeafID reads the one SPIFFE ID of an X.509-SVID leaf (X509-SVID, sections 2 and 4): exactly one URI SAN, not a CA.
func LeafID(leaf *x509.Certificate) (spiffeid.ID, error) {
	if len(leaf.URIs) != 1 {
		return spiffeid.ID{}, fmt.Errorf("peer certificate has %d URI names, an X.509-SVID has one", len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	switch {
	case err != nil:
		return spiffeid.ID{}, fmt.Errorf("peer certificate: %w", err)
	case leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return spiffeid.ID{}, fmt.Errorf("peer %q: certificate is a CA's, not a leaf", id)
	case id.Path() == "":
		return spiffeid.ID{}, fmt.Errorf("peer %q: a leaf needs a path", id)
	}
	return id, nil
}

// PeerID returns the identity of a connection that one of this package's configurations verified.
func PeerID(state tls.ConnectionState) (spiffeid.ID, error) {
	if len(state.PeerCertificates) == 0 {
		return spiffeid.ID{}, ErrUnverified
	}
	return LeafID(state.PeerCertificates[0])
}
