// Package trusttest mints certificate authorities and X.509-SVIDs in memory, for tests.
//
// It panics where a test would have to stop anyway: a malformed name, a broken random source.
package trusttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust"
)

// CA is the authority of one trust domain. Not safe for concurrent Rotate.
type CA struct {
	TrustDomain spiffeid.TrustDomain
	key         *ecdsa.PrivateKey
	roots       []*x509.Certificate // the active one last
}

// NewCA makes an authority with one root, valid for a day.
func NewCA(trustDomain string) *CA {
	ca := &CA{TrustDomain: spiffeid.RequireTrustDomainFromString(trustDomain)}
	ca.Rotate()
	return ca
}

// Rotate signs with a new root from now on; the older ones stay in the bundle until Retire.
func (ca *CA) Rotate() {
	ca.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{ca.TrustDomain.ID().URL()},
	}
	ca.roots = append(ca.roots, sign(template, template, &ca.key.PublicKey, ca.key))
}

// Retire removes all roots but the active one.
func (ca *CA) Retire() { ca.roots = ca.roots[len(ca.roots)-1:] }

// Root is the active root.
func (ca *CA) Root() *x509.Certificate { return ca.roots[len(ca.roots)-1] }

// Roots are all published roots, the active one last.
func (ca *CA) Roots() []*x509.Certificate { return slices.Clone(ca.roots) }

// JWKS is the bundle document with the given sequence.
func (ca *CA) JWKS(sequence uint64) []byte {
	return must(trust.NewBundle(ca.TrustDomain, sequence, ca.roots, nil).Marshal())
}

// SVID issues an SVID for path, such as "/ns/shop/sa/cart", that can verify its own domain and those federated.
func (ca *CA) SVID(path string, ttl time.Duration, federated ...*CA) *trust.Material {
	id := spiffeid.RequireFromPath(ca.TrustDomain, path)
	bundles := map[spiffeid.TrustDomain][]*x509.Certificate{ca.TrustDomain: ca.Roots()}
	for _, other := range federated {
		bundles[other.TrustDomain] = other.Roots()
	}
	certificate := ca.Certificate(func(c *x509.Certificate) {
		c.URIs, c.NotAfter = []*url.URL{id.URL()}, time.Now().Add(ttl)
		c.NotBefore = slices.MinFunc([]time.Time{c.NotBefore, c.NotAfter.Add(-time.Minute)}, time.Time.Compare)
	})
	return &trust.Material{ID: id, Certificate: certificate, Bundles: bundles}
}

// Source is an SVID's material that never changes.
func (ca *CA) Source(path string, ttl time.Duration, federated ...*CA) trust.Source {
	return trust.FixedSource(ca.SVID(path, ttl, federated...))
}

// Certificate signs whatever edit makes of a plain leaf without names that is valid for an hour.
func (ca *CA) Certificate(edit func(*x509.Certificate)) *tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := ca.Sign(key.Public(), edit)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Sign is Certificate for a key that the caller holds.
func (ca *CA) Sign(public crypto.PublicKey, edit func(*x509.Certificate)) *x509.Certificate {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	edit(template)
	return sign(template, ca.Root(), public, ca.key)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, public, key))))
}

func serial() *big.Int { return must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))) }

func must[T any](v T, err error) T {
	if err != nil {
		panic("trusttest: " + err.Error())
	}
	return v
}
