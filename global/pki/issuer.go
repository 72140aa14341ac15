package pki

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

// Lifetimes of what a replica issues.
const (
	SelfTTL  = 24 * time.Hour // of its own SVID; renewed at half
	AgentTTL = time.Hour      // of an agent's credential
)

// Issuer is one replica's part of the authority. Safe for concurrent use.
type Issuer struct {
	ca      pair
	root    *x509.Certificate
	replica string
}

// Load reads the folder that [AddReplica] made.
func Load(replicaDir string) (*Issuer, error) {
	ca, err := loadPair(filepath.Join(replicaDir, "ca"))
	if err != nil {
		return nil, fmt.Errorf("pki: load %s: %w", replicaDir, err)
	}
	roots, err := readCertificates(filepath.Join(replicaDir, "root.crt"))
	if err != nil {
		return nil, fmt.Errorf("pki: load %s: %w", replicaDir, err)
	}
	i := &Issuer{ca: ca, root: roots[0], replica: ca.cert.Subject.CommonName}
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("pki: load %s: %w", replicaDir, err)
	}
	if info, err := os.Stat(filepath.Join(replicaDir, "ca.key")); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("pki: load %s: ca.key is readable by others (%v); chmod 600 it", replicaDir, info.Mode().Perm())
	}
	return i, nil
}

func (i *Issuer) check() error {
	switch {
	case !slices.Contains(i.ca.cert.Subject.OrganizationalUnit, replicaUnit):
		return fmt.Errorf("ca.crt is not a replica's intermediate")
	case len(i.root.URIs) != 1 || i.root.URIs[0].String() != i.ca.cert.URIs[0].String():
		return fmt.Errorf("ca.crt and root.crt are of different trust domains")
	}
	if err := i.ca.cert.CheckSignatureFrom(i.root); err != nil {
		return fmt.Errorf("ca.crt is not signed by root.crt: %w", err)
	}
	if now := time.Now(); now.After(i.ca.cert.NotAfter) {
		return fmt.Errorf("ca.crt ended at %s; renew it with the root, or check the clock", i.ca.cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// Replica is the id of the replica that the issuer belongs to.
func (i *Issuer) Replica() string { return i.replica }

// TrustDomain of the control plane.
func (i *Issuer) TrustDomain() spiffeid.TrustDomain { return i.ca.domain() }

// Roots of the control plane's trust domain.
func (i *Issuer) Roots() []*x509.Certificate { return []*x509.Certificate{i.root} }

// RootHash is the hex SHA-256 of the root, as a join token carries it.
func (i *Issuer) RootHash() string {
	sum := sha256.Sum256(i.root.Raw)
	return hex.EncodeToString(sum[:])
}

// IssueSelf makes a new key and SVID for the replica. Its chain ends with the root, so that an agent which knows
// only the root's hash can verify it. The hosts, names or IP addresses by which others dial the replica, stand in it
// for clients that verify host names; the mesh itself looks at the SPIFFE ID alone.
func (i *Issuer) IssueSelf(hosts ...string) (*trust.Material, error) {
	id, err := mesh.PlaneIdentity(i.TrustDomain(), mesh.RoleController, i.replica)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	template, err := leaf(id, i.replica, SelfTTL)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	addHosts(template, hosts)
	cert, err := sign(template, i.ca.cert, key.Public(), i.ca.key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return &trust.Material{
		ID:          id,
		Certificate: &tls.Certificate{Certificate: [][]byte{cert.Raw, i.ca.cert.Raw, i.root.Raw}, PrivateKey: key, Leaf: cert},
		Bundles:     map[spiffeid.TrustDomain][]*x509.Certificate{i.TrustDomain(): i.Roots()},
	}, nil
}

// IssueAgent makes the credential of a cluster's agent for its public key, valid for [AgentTTL]: DER, leaf first.
func (i *Issuer) IssueAgent(public crypto.PublicKey, cluster string, generation uint64) (chain [][]byte, err error) {
	id, err := mesh.PlaneIdentity(i.TrustDomain(), mesh.RoleAgent, cluster)
	if err != nil {
		return nil, fmt.Errorf("pki: agent of %q: %w", cluster, err)
	}
	template, err := leaf(id, cluster, AgentTTL)
	if err != nil {
		return nil, fmt.Errorf("pki: agent of %q: %w", cluster, err)
	}
	template.Subject.SerialNumber = strconv.FormatUint(generation, 10)
	cert, err := sign(template, i.ca.cert, public, i.ca.key)
	if err != nil {
		return nil, fmt.Errorf("pki: agent of %q: %w", cluster, err)
	}
	return [][]byte{cert.Raw, i.ca.cert.Raw}, nil
}

// AgentGeneration reads the generation of the credential from an agent's leaf.
func AgentGeneration(leaf *x509.Certificate) (uint64, error) {
	generation, err := strconv.ParseUint(leaf.Subject.SerialNumber, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("agent's certificate: generation %q is not a number", leaf.Subject.SerialNumber)
	}
	return generation, nil
}

// Authority is the replica whose intermediate signed a chain's leaf; "" if none did, but the root or another domain's.
func Authority(chain []*x509.Certificate) string {
	for _, c := range chain[min(1, len(chain)):] {
		if slices.Contains(c.Subject.OrganizationalUnit, replicaUnit) && chain[0].CheckSignatureFrom(c) == nil {
			return c.Subject.CommonName
		}
	}
	return ""
}

// Source is the replica's own SVID and the control plane's bundle, always fresh while Run runs. A trust.Source.
type Source struct {
	watch.Value[*trust.Material]
	issuer *Issuer
	hosts  []string
}

// Source issues a first SVID. See [Issuer.IssueSelf] for the hosts.
func (i *Issuer) Source(hosts ...string) (*Source, error) {
	material, err := i.IssueSelf(hosts...)
	if err != nil {
		return nil, err
	}
	s := &Source{issuer: i, hosts: hosts}
	s.Set(material)
	return s, nil
}

// Run renews the SVID at half of its life until ctx is done. It returns an error only when issuing fails.
func (s *Source) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(SelfTTL / 2):
		}
		material, err := s.issuer.IssueSelf(s.hosts...)
		if err != nil {
			return err
		}
		s.Set(material)
	}
}
