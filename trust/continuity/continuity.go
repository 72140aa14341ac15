package continuity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

// Why a bundle was refused; each error of [Verify] is one of these.
var (
	// ErrMalformed is a bundle or chain that cannot be read, or a bundle without roots: emptied, foreign, too large.
	ErrMalformed = errors.New("bundle is malformed")
	// ErrSequence is an older bundle, or another one under the sequence number that is held.
	ErrSequence = errors.New("bundle is not newer than the one held")
	// ErrSigner is a signer that is not the domain's agent under the bundle that is held, or has expired.
	ErrSigner = errors.New("bundle is signed by a stranger")
	// ErrSignature is a signature that does not fit the statement.
	ErrSignature = errors.New("bundle's signature does not verify")
)

const maxChain = 8 // certificates

// label keeps these signatures apart from all others that the SVID's key makes.
const label = "periplus bundle continuity v1\x00"

// Proof is a bundle with the proof of where it comes from.
type Proof struct {
	TrustDomain spiffeid.TrustDomain
	Sequence    uint64
	Bundle      []byte   // JWKS
	Signature   []byte   // of the statement over the three above
	Chain       [][]byte // DER, the signer's X.509-SVID first
}

// Statement is what is signed:
//
//	label | length of the domain's name, 2 bytes | name | sequence, 8 bytes | SHA-256 of the bundle
func Statement(domain spiffeid.TrustDomain, sequence uint64, bundle []byte) []byte {
	sum := sha256.Sum256(bundle)
	name := domain.Name()
	s := append([]byte(label), byte(len(name)>>8), byte(len(name))) // a domain's name is at most 255 bytes
	s = append(s, name...)
	s = binary.BigEndian.AppendUint64(s, sequence)
	return append(s, sum[:]...)
}

// Sign proves with the agent's own SVID that bundle is the domain's. It refuses what nobody would accept.
func Sign(material *trust.Material, domain spiffeid.TrustDomain, sequence uint64, bundle []byte) (signature []byte, chain [][]byte, err error) {
	if want := mesh.AgentIdentity(domain); material.ID != want {
		return nil, nil, fmt.Errorf("sign bundle of %q: own identity is %q, want %q", domain.Name(), material.ID, want)
	}
	if _, err := parse(Proof{TrustDomain: domain, Sequence: sequence, Bundle: bundle}); err != nil {
		return nil, nil, fmt.Errorf("sign %w", err)
	}
	signer, ok := material.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("sign bundle of %q: key is a %T", domain.Name(), material.Certificate.PrivateKey)
	}
	signature, err = signWith(signer, Statement(domain, sequence, bundle))
	if err != nil {
		return nil, nil, fmt.Errorf("sign bundle of %q: %w", domain.Name(), err)
	}
	return signature, material.Certificate.Certificate, nil
}

func signWith(signer crypto.Signer, statement []byte) ([]byte, error) {
	sum := sha256.Sum256(statement)
	switch signer.Public().(type) {
	case ed25519.PublicKey:
		return signer.Sign(rand.Reader, statement, crypto.Hash(0))
	case *rsa.PublicKey:
		return signer.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	}
	return signer.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// Verify decides at the time now whether next may take the place of held, the JWKS that was accepted before;
// nil = the domain is not known yet (see the package on what that means). It returns the parsed bundle.
// What is held already is accepted again, whoever signed it. Bad input never panics.
func Verify(held []byte, next Proof, now time.Time) (*trust.Bundle, error) {
	bundle, err := parse(next)
	if err != nil {
		return nil, err
	}
	base := bundle // first use: consistent in itself
	if held != nil {
		if base, err = trust.ParseBundle(next.TrustDomain, held); err != nil {
			return nil, fmt.Errorf("held %w", err) // our own copy is broken: fail closed
		}
		switch {
		case next.Sequence == base.Sequence && bytes.Equal(held, next.Bundle):
			return bundle, nil
		case next.Sequence <= base.Sequence:
			return nil, refuse(next, ErrSequence, fmt.Errorf("has sequence %d, held is %d", next.Sequence, base.Sequence))
		}
	}
	leaf, err := signer(base, next, now)
	if err != nil {
		return nil, refuse(next, ErrSigner, err)
	}
	if err := check(leaf, Statement(next.TrustDomain, next.Sequence, next.Bundle), next.Signature); err != nil {
		return nil, refuse(next, ErrSignature, err)
	}
	return bundle, nil
}

func refuse(p Proof, why, detail error) error {
	return fmt.Errorf("bundle of %q: %w: %w", p.TrustDomain.Name(), why, detail)
}

// parse reads the bundle strictly; its own sequence number must be the stated one.
func parse(p Proof) (*trust.Bundle, error) {
	if p.TrustDomain.IsZero() {
		return nil, refuse(p, ErrMalformed, errors.New("no trust domain"))
	}
	bundle, err := trust.ParseBundle(p.TrustDomain, p.Bundle)
	if err != nil {
		return nil, refuse(p, ErrMalformed, err)
	}
	if bundle.Sequence != p.Sequence {
		return nil, refuse(p, ErrMalformed, fmt.Errorf("states sequence %d and contains %d", p.Sequence, bundle.Sequence))
	}
	return bundle, nil
}

// signer returns the leaf if it is the domain's agent and verifies, at now, against the base bundle alone.
func signer(base *trust.Bundle, p Proof, now time.Time) (*x509.Certificate, error) {
	chain, err := parseChain(p.Chain)
	if err != nil {
		return nil, err
	}
	id, err := trust.LeafID(chain[0])
	if err != nil {
		return nil, err
	}
	if want := mesh.AgentIdentity(p.TrustDomain); id != want {
		return nil, fmt.Errorf("signer is %q, want %q", id, want)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range base.X509 {
		roots.AddCert(root)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return chain[0], err
}

func parseChain(raw [][]byte) ([]*x509.Certificate, error) {
	if len(raw) == 0 || len(raw) > maxChain {
		return nil, fmt.Errorf("chain has %d certificates, want 1 to %d", len(raw), maxChain)
	}
	var chain []*x509.Certificate
	for i, der := range raw {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("chain certificate %d: %w", i, err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// check verifies the signature by the key's own algorithm, of which there is one per kind of key.
func check(leaf *x509.Certificate, statement, signature []byte) error {
	switch leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return leaf.CheckSignature(x509.ECDSAWithSHA256, statement, signature)
	case *rsa.PublicKey:
		return leaf.CheckSignature(x509.SHA256WithRSAPSS, statement, signature)
	case ed25519.PublicKey:
		return leaf.CheckSignature(x509.PureEd25519, statement, signature)
	}
	return fmt.Errorf("signer's key is a %T", leaf.PublicKey)
}
