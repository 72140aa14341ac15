package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Lifetimes of what is issued with the root.
const (
	rootTTL         = 10 * 365 * 24 * time.Hour
	intermediateTTL = 2 * 365 * 24 * time.Hour
	operatorTTL     = 365 * 24 * time.Hour
)

const operatorsDir = "operators"

// Init makes a control plane's root in dir, an intermediate for each replica and a certificate for each operator.
// It refuses a dir that has a root already, and leaves it untouched; see [AddReplica] and [AddOperator].
func Init(dir string, trustDomain string, replicas, operators []string) error {
	domain, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return fmt.Errorf("pki: trust domain %q: %w", trustDomain, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "root.crt")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pki: %s has a root already; add to it, or choose another folder", dir)
	}
	if err := writeRoot(dir, domain); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	for _, id := range replicas {
		if err := AddReplica(dir, id); err != nil {
			return err
		}
	}
	for _, name := range operators {
		if err := AddOperator(dir, name); err != nil {
			return err
		}
	}
	return nil
}

func writeRoot(dir string, domain spiffeid.TrustDomain) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	template, err := authority(domain, "Periplus root of "+domain.Name(), rootTTL)
	if err != nil {
		return err
	}
	template.MaxPathLen = 1
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return writePair(filepath.Join(dir, "root"), key, cert)
}

// AddReplica makes dir/<id>, the folder that replica id is given: its intermediate authority and the root. An
// existing folder is renewed. It needs the root's key.
func AddReplica(dir, id string) error {
	if _, err := mesh.ParseClusterID(id); err != nil || id == operatorsDir {
		return fmt.Errorf("pki: replica %q: must be an RFC 1123 label (a-z, 0-9, '-', at most 63), not %q", id, operatorsDir)
	}
	root, err := loadPair(filepath.Join(dir, "root"))
	if err != nil {
		return fmt.Errorf("pki: replica %q needs the root: %w", id, err)
	}
	template, err := authority(root.domain(), id, intermediateTTL)
	if err != nil {
		return fmt.Errorf("pki: replica %q: %w", id, err)
	}
	template.Subject.OrganizationalUnit = []string{replicaUnit}
	template.MaxPathLenZero = true
	return root.write(filepath.Join(dir, id), "ca", template)
}

// AddOperator makes dir/operators/<name>.crt and .key, for a person or a pipeline. It needs the root's key.
func AddOperator(dir, name string) error {
	root, err := loadPair(filepath.Join(dir, "root"))
	if err != nil {
		return fmt.Errorf("pki: operator %q needs the root: %w", name, err)
	}
	id, err := mesh.PlaneIdentity(root.domain(), mesh.RoleOperator, name)
	if err != nil {
		return fmt.Errorf("pki: operator %q: %w", name, err)
	}
	template, err := leaf(id, name, operatorTTL)
	if err != nil {
		return fmt.Errorf("pki: operator %q: %w", name, err)
	}
	return root.write(filepath.Join(dir, operatorsDir), name, template)
}

// write makes a key and a certificate for template in folder, beside a copy of the root.
func (p pair) write(folder, name string, template *x509.Certificate) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	cert, err := sign(template, p.cert, key.Public(), p.key)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "root.crt"), encodeCertificates(p.cert), 0o644); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return writePair(filepath.Join(folder, name), key, cert)
}

// pair is an authority: its certificate and key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (p pair) domain() spiffeid.TrustDomain {
	id, err := spiffeid.FromURI(p.cert.URIs[0])
	if err != nil {
		panic(fmt.Sprintf("pki: loadPair let %v pass", p.cert.URIs)) // loadPair has checked it
	}
	return id.TrustDomain()
}

func loadPair(base string) (pair, error) {
	certs, err := readCertificates(base + ".crt")
	if err != nil {
		return pair{}, err
	}
	key, err := readKey(base + ".key")
	if err != nil {
		return pair{}, err
	}
	cert := certs[0]
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !public.Equal(key.Public()):
		return pair{}, fmt.Errorf("%s.key does not belong to %s.crt", base, base)
	case !cert.IsCA || len(cert.URIs) != 1:
		return pair{}, fmt.Errorf("%s.crt is not a control plane's authority", base)
	}
	if _, err := spiffeid.FromURI(cert.URIs[0]); err != nil {
		return pair{}, fmt.Errorf("%s.crt: %w", base, err)
	}
	return pair{cert, key}, nil
}
