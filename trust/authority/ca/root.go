package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Root is one self-signed authority. Immutable.
type Root struct {
	certificate *x509.Certificate
	key         crypto.Signer
	phase       Phase
	tainted     bool // SVIDs that it signed are renewed at once
}

// ID is the authority ID of the localauthority API: the subject key identifier, in hexadecimal digits.
func (r *Root) ID() string { return hex.EncodeToString(r.certificate.SubjectKeyId) }

// Phase is where r is in its life.
func (r *Root) Phase() Phase { return r.phase }

// Tainted tells whether SVIDs that r signed are to be renewed at once.
func (r *Root) Tainted() bool { return r.tainted }

// NotAfter is when r expires.
func (r *Root) NotAfter() time.Time { return r.certificate.NotAfter }

func (r *Root) in(p Phase) *Root {
	changed := *r
	changed.phase = p
	return &changed
}

// left is when the share of the root's life that is left falls to 1/part.
func (r *Root) left(part int64) time.Time {
	c := r.certificate
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / time.Duration(part))
}

// newRoot makes a root for the domain (X509-SVID, section 3.1 and 4.3: a signing certificate's ID has no path).
func newRoot(domain spiffeid.TrustDomain, now time.Time, life time.Duration) (*Root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	number, err := serial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: number, SubjectKeyId: keyID(&key.PublicKey),
		Subject:   pkix.Name{Organization: []string{"Periplus"}, CommonName: domain.Name(), SerialNumber: number.String()},
		NotBefore: now.Add(-backdate(life)), NotAfter: roundUp(now.Add(life)),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:     []*url.URL{domain.ID().URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	return &Root{certificate: certificate, key: key, phase: Prepared}, nil
}

// keyID hashes the public key as SubjectPublicKeyInfo, cut to 20 bytes (RFC 7093, section 2, method 1).
func keyID(public *ecdsa.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(fmt.Sprintf("ca: public key of our own: %v", err))
	}
	sum := sha256.Sum256(der)
	return sum[:20]
}

// backdate allows for clocks that lag behind this one, without ageing a short life visibly.
func backdate(life time.Duration) time.Duration { return min(time.Minute, life/10) }

// roundUp makes up for certificates knowing whole seconds only.
func roundUp(t time.Time) time.Time { return t.Add(time.Second - 1).Truncate(time.Second) }

func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// Order is what an SVID is to say.
type Order struct {
	ID   spiffeid.ID
	DNS  []string
	Life time.Duration
}

// SVID is an issued identity as the Workload API carries it.
type SVID struct {
	Leaf     []byte // DER
	Key      []byte // PKCS#8 DER; made for this SVID
	NotAfter time.Time
}

// ErrExpired is the error when there is no root that can sign.
var ErrExpired = errors.New("the active root has expired")

// Issue signs a leaf with a fresh key, valid from a little before now. It never outlives the root; a root that has
// expired issues nothing (ErrExpired).
func (r *Root) Issue(o Order, now time.Time) (*SVID, error) {
	notAfter := roundUp(now.Add(o.Life))
	if notAfter.After(r.certificate.NotAfter) {
		notAfter = r.certificate.NotAfter
	}
	if !now.Before(notAfter) {
		return nil, ErrExpired
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("SVID key: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("SVID key: %w", err)
	}
	number, err := serial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{Organization: []string{"Periplus"}},
		NotBefore: now.Add(-backdate(o.Life)), NotAfter: notAfter, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{o.ID.URL()}, DNSNames: o.DNS,
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, r.certificate, private.Public(), r.key)
	if err != nil {
		return nil, fmt.Errorf("SVID %q: %w", o.ID, err)
	}
	return &SVID{Leaf: leaf, Key: key, NotAfter: notAfter}, nil
}
