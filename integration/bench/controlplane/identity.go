package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

func trustDomain() spiffeid.TrustDomain { return spiffeid.RequireTrustDomainFromString("east.mesh") }

func workloadID() spiffeid.ID {
	return spiffeid.RequireFromPath(trustDomain(), "/ns/shop/sa/service")
}

// shared is where a server finds the key and the certificate of the process that started it, in base64 with a space between.
const shared = "PERIPLUS_BENCH_IDENTITY"

// share makes the identity of this process, and of those that it will start.
func share() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id := workloadID()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{id.URL()}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.Setenv(shared, base64.StdEncoding.EncodeToString(private)+" "+base64.StdEncoding.EncodeToString(der))
}

// identities is one SVID that is its own root: the benchmark measures handshakes and records, not trust.
func identities() (trust.Source, error) {
	var parts [2][]byte
	for i, text := range strings.Fields(os.Getenv(shared)) {
		var err error
		if parts[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, err
		}
	}
	key, err := x509.ParsePKCS8PrivateKey(parts[0])
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(parts[1])
	if err != nil {
		return nil, err
	}
	return watch.New(&trust.Material{
		ID:          workloadID(),
		Certificate: &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		Bundles:     map[spiffeid.TrustDomain][]*x509.Certificate{trustDomain(): {leaf}},
	}), nil
}
