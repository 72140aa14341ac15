package trust

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// MaxBundleBytes is the largest bundle document that is read: thousands of roots; a real one has a few.
const MaxBundleBytes = 1 << 20

// Bundle is a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4) of one trust domain. Immutable.
type Bundle struct {
	TrustDomain spiffeid.TrustDomain
	Sequence    uint64              // spiffe_sequence: rises with every change of content
	RefreshHint time.Duration       // whole seconds; 0 = none
	X509        []*x509.Certificate // roots; never empty after ParseBundle
	JWT         map[string]crypto.PublicKey
}

type bundleDocument struct {
	Keys        []jose.JSONWebKey `json:"keys"`
	Sequence    *uint64           `json:"spiffe_sequence,omitempty"`
	RefreshHint *int64            `json:"spiffe_refresh_hint,omitempty"`
}

// Values of a key's "use" (SPIFFE Trust Domain and Bundle, section 4.2.2).
const (
	useX509 = "x509-svid"
	useJWT  = "jwt-svid"
)

// ParseBundle reads a bundle document (JWKS) strictly: it must have a sequence number and at least one X.509
// root, each root one CA certificate that is meant for this trust domain or for none, and nothing after the
// document. Keys of unknown use are ignored, as the specification demands.
func ParseBundle(domain spiffeid.TrustDomain, data []byte) (*Bundle, error) {
	document, err := decodeBundle(data)
	if err == nil {
		var b *Bundle
		if b, err = document.bundle(domain); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("bundle of %q: %w", domain.Name(), err)
}

func decodeBundle(data []byte) (*bundleDocument, error) {
	if len(data) > MaxBundleBytes {
		return nil, fmt.Errorf("is %d bytes, the limit is %d", len(data), MaxBundleBytes)
	}
	document := &bundleDocument{}
	if err := json.Unmarshal(data, document); err != nil {
		return nil, fmt.Errorf("is not a JWKS: %w", err)
	}
	if document.Sequence == nil {
		return nil, errors.New("has no spiffe_sequence")
	}
	return document, nil
}

func (d *bundleDocument) bundle(domain spiffeid.TrustDomain) (*Bundle, error) {
	b := &Bundle{TrustDomain: domain, Sequence: *d.Sequence, JWT: make(map[string]crypto.PublicKey)}
	if hint := d.RefreshHint; hint != nil && *hint > 0 && *hint < 1<<31 {
		b.RefreshHint = time.Duration(*hint) * time.Second
	}
	for i, key := range d.Keys {
		if err := b.add(key); err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
	}
	if len(b.X509) == 0 {
		return nil, errors.New("has no X.509 root")
	}
	b.sort()
	return b, nil
}

func (b *Bundle) add(key jose.JSONWebKey) error {
	switch key.Use {
	case useX509:
		if len(key.Certificates) != 1 {
			return fmt.Errorf("has %d certificates, a root has one", len(key.Certificates))
		}
		if err := checkRoot(b.TrustDomain, key.Certificates[0]); err != nil {
			return err
		}
		b.X509 = append(b.X509, key.Certificates[0])
	case useJWT:
		if _, twice := b.JWT[key.KeyID]; twice || key.KeyID == "" || !key.IsPublic() {
			return errors.New("a JWT key needs a key ID of its own and must be public")
		}
		b.JWT[key.KeyID] = key.Key
	}
	return nil
}

// checkRoot refuses what could never verify a leaf, and a root that says it is another domain's.
func checkRoot(domain spiffeid.TrustDomain, root *x509.Certificate) error {
	if !root.IsCA {
		return errors.New("certificate is not a CA's")
	}
	for _, uri := range root.URIs {
		if id, err := spiffeid.FromURI(uri); err != nil || id.TrustDomain() != domain {
			return fmt.Errorf("root is of %q", uri)
		}
	}
	return nil
}

// sort makes equal contents equal documents, whoever listed them in what order.
func (b *Bundle) sort() {
	slices.SortFunc(b.X509, func(x, y *x509.Certificate) int { return bytes.Compare(x.Raw, y.Raw) })
	b.X509 = slices.CompactFunc(b.X509, (*x509.Certificate).Equal)
}

// NewBundle makes a bundle of its parts; jwt may be nil.
func NewBundle(domain spiffeid.TrustDomain, sequence uint64, roots []*x509.Certificate, jwt map[string]crypto.PublicKey) *Bundle {
	b := &Bundle{TrustDomain: domain, Sequence: sequence, X509: slices.Clone(roots), JWT: maps.Clone(jwt)}
	b.sort()
	return b
}

// Marshal writes the bundle document: equal bundles give equal bytes.
func (b *Bundle) Marshal() ([]byte, error) {
	document := bundleDocument{Keys: []jose.JSONWebKey{}, Sequence: &b.Sequence}
	if b.RefreshHint > 0 {
		seconds := int64(b.RefreshHint / time.Second)
		document.RefreshHint = &seconds
	}
	for _, root := range b.X509 {
		document.Keys = append(document.Keys, jose.JSONWebKey{Key: root.PublicKey, Certificates: []*x509.Certificate{root}, Use: useX509})
	}
	for _, id := range slices.Sorted(maps.Keys(b.JWT)) {
		document.Keys = append(document.Keys, jose.JSONWebKey{Key: b.JWT[id], KeyID: id, Use: useJWT})
	}
	data, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("bundle of %q: %w", b.TrustDomain.Name(), err)
	}
	return data, nil
}

// SameKeys reports whether both hold the same keys; sequence and hint do not count.
func (b *Bundle) SameKeys(o *Bundle) bool {
	sameJWT := maps.EqualFunc(b.JWT, o.JWT, func(x, y crypto.PublicKey) bool {
		k, ok := x.(interface{ Equal(crypto.PublicKey) bool })
		return ok && k.Equal(y)
	})
	return sameJWT && slices.EqualFunc(b.X509, o.X509, (*x509.Certificate).Equal)
}

// Expiry is when the last of the roots expires: nothing of the domain verifies afterwards. Zero without roots. The first
// says little: SPIRE keeps expired roots for a day.
func (b *Bundle) Expiry() time.Time {
	if len(b.X509) == 0 {
		return time.Time{}
	}
	last := slices.MaxFunc(b.X509, func(x, y *x509.Certificate) int { return x.NotAfter.Compare(y.NotAfter) })
	return last.NotAfter
}
