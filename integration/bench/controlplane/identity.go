package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

func trustDomain() spiffeid.TrustDomain { return spiffeid.RequireTrustDomainFromString("east.mesh") }

func workloadID() spiffeid.ID {
	return spiffeid.RequireFromPath(trustDomain(), "/ns/shop/sa/service")
}

// identities is one SVID that is its own root: the benchmark measures handshakes and records, not trust, and its two
// processes share no file.
func identities() (trust.Source, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id := workloadID()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{id.URL()}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return watch.New(&trust.Material{
		ID:          id,
		Certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		Bundles:     map[spiffeid.TrustDomain][]*x509.Certificate{trustDomain(): {leaf}},
	}), nil
}
