package authority

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

// root is one self-signed authority. Immutable.
type root struct {
	certificate *x509.Certificate
	key         crypto.Signer
	phase       phase
	tainted     bool // SVIDs that it signed are renewed at once
}

// id is the authority ID of the localauthority API: the subject key identifier.
func (r *root) id() string { return hex.EncodeToString(r.certificate.SubjectKeyId) }

func (r *root) in(p phase) *root {
	changed := *r
	changed.phase = p
	return &changed
}

func (r *root) taint() *root {
	changed := *r
	changed.tainted = true
	return &changed
}

// left is when the share of the root's life that is left falls to 1/part.
func (r *root) left(part int64) time.Time {
	c := r.certificate
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / time.Duration(part))
}

// newRoot makes a root for the domain (X509-SVID, section 3.1 and 4.3: a signing certificate's ID has no path).
func newRoot(domain spiffeid.TrustDomain, now time.Time, life time.Duration) (*root, error) {
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
	return &root{certificate: certificate, key: key, phase: prepared}, nil
}

// keyID hashes the public key as SubjectPublicKeyInfo, cut to 20 bytes (RFC 7093, section 2, method 1).
func keyID(public *ecdsa.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(fmt.Sprintf("authority: public key of our own: %v", err))
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

// svid is an issued identity, ready for the Workload API.
type svid struct {
	id       string
	leaf     []byte // DER
	key      []byte // PKCS#8 DER
	signer   string // root.id
	revision int64  // of the entry
	renewAt  time.Time
	hint     string
}

// order is what an SVID is to say.
type order struct {
	id   spiffeid.ID
	dns  []string
	life time.Duration
}

var errExpired = errors.New("the active root has expired")

// issue signs a leaf with a fresh key. It never outlives the root.
func (r *root) issue(o order, now time.Time) (leaf, key []byte, notAfter time.Time, err error) {
	notAfter = roundUp(now.Add(o.life))
	if notAfter.After(r.certificate.NotAfter) {
		notAfter = r.certificate.NotAfter
	}
	if !now.Before(notAfter) {
		return nil, nil, notAfter, errExpired
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, notAfter, fmt.Errorf("SVID key: %w", err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		return nil, nil, notAfter, fmt.Errorf("SVID key: %w", err)
	}
	number, err := serial()
	if err != nil {
		return nil, nil, notAfter, err
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{Organization: []string{"Periplus"}},
		NotBefore: now.Add(-backdate(o.life)), NotAfter: notAfter, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{o.id.URL()}, DNSNames: o.dns,
	}
	if leaf, err = x509.CreateCertificate(rand.Reader, template, r.certificate, private.Public(), r.key); err != nil {
		return nil, nil, notAfter, fmt.Errorf("SVID %q: %w", o.id, err)
	}
	return leaf, key, notAfter, nil
}
