package trust_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust"
)

func TestBundleExpiry(t *testing.T) {
	at := func(second int64) *x509.Certificate {
		return &x509.Certificate{Raw: []byte{byte(second)}, NotAfter: time.Unix(second, 0)}
	}
	domain := spiffeid.RequireTrustDomainFromString("west.mesh")
	if b := trust.NewBundle(domain, 1, []*x509.Certificate{at(10), at(30), at(20)}, nil); !b.Expiry().Equal(time.Unix(30, 0)) {
		t.Errorf("expires %v, want the last root's", b.Expiry())
	}
	if b := trust.NewBundle(domain, 1, nil, nil); !b.Expiry().IsZero() {
		t.Errorf("without roots: %v", b.Expiry())
	}
}
