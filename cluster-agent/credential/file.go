package credential

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust"
)

// FileName is where the credential is, within the data folder.
const FileName = "credential.json"

// stored is the file.
type stored struct {
	Version      int      `json:"version"`
	TokenHash    string   `json:"token_sha256"` // of the token that registered it
	Plane        string   `json:"plane"`        // trust domain of the control plane
	Controllers  []string `json:"controllers"`
	Bundle       []byte   `json:"bundle"`       // JWKS of the plane
	Key          []byte   `json:"key"`          // PKCS #8, DER
	Certificates [][]byte `json:"certificates"` // DER, leaf first
	Cluster      []byte   `json:"cluster"`      // the registered cluster, as a mesh object
}

// identity is a stored credential, understood.
type identity struct {
	stored   *stored
	material *trust.Material
	cluster  *mesh.Cluster
	plane    spiffeid.TrustDomain
}

// generation is the credential generation that the controllers wrote into the leaf.
func (i *identity) generation() uint64 {
	n, err := strconv.ParseUint(i.material.Certificate.Leaf.Subject.SerialNumber, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// understand checks that everything in s belongs together.
func (s *stored) understand() (*identity, error) {
	if len(s.Controllers) == 0 {
		return nil, errors.New("no controllers")
	}
	plane, err := spiffeid.TrustDomainFromString(s.Plane)
	if err != nil {
		return nil, fmt.Errorf("control plane %q: %w", s.Plane, err)
	}
	bundle, err := trust.ParseBundle(plane, s.Bundle)
	if err != nil {
		return nil, err
	}
	object, err := meshpb.Unmarshal(s.Cluster)
	if err != nil {
		return nil, err
	}
	cluster, ok := object.(*mesh.Cluster)
	if !ok {
		return nil, fmt.Errorf("%s is not a cluster", object.Key())
	}
	certificate, chain, err := s.certificate()
	if err != nil {
		return nil, err
	}
	id, err := trust.LeafID(chain[0])
	if err != nil {
		return nil, err
	}
	want, err := mesh.PlaneIdentity(plane, mesh.RoleAgent, string(cluster.ID))
	if err != nil || id != want {
		return nil, fmt.Errorf("certificate is %q's, want %q", id, want)
	}
	material := &trust.Material{ID: id, Certificate: certificate, Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{plane: bundle.X509}}
	return &identity{stored: s, material: material, cluster: cluster, plane: plane}, nil
}

func (s *stored) certificate() (*tls.Certificate, []*x509.Certificate, error) {
	key, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	var chain []*x509.Certificate
	for _, der := range s.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate: %w", err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, nil, errors.New("no certificate")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("key cannot sign")
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, nil, errors.New("certificate is not for the key")
	}
	return &tls.Certificate{Certificate: s.Certificates, PrivateKey: key, Leaf: chain[0]}, chain, nil
}

// receive puts what a controller issued for key into a file of its own.
func receive(c *pb.Credential, key crypto.Signer, cluster []byte, tokenHash string) (*identity, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	s := &stored{
		Version: 1, TokenHash: tokenHash, Plane: c.GetTrustDomain(), Controllers: c.GetControllers(), Bundle: c.GetBundle(),
		Key: der, Certificates: c.GetCertificates(), Cluster: cluster,
	}
	i, err := s.understand()
	if err != nil {
		return nil, fmt.Errorf("controller issued an unusable credential: %w", err)
	}
	return i, nil
}

// load reads the folder's credential; nil without an error means that there is none.
func load(dir string) (*identity, error) {
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	s := &stored{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("credential: %s: %w", path, err)
	}
	i, err := s.understand()
	if err != nil {
		return nil, fmt.Errorf("credential: %s: %w", path, err)
	}
	return i, nil
}

// Expiry is when the credential in a data folder ends. After an error there is none, or none that an agent could use.
func Expiry(dir string) (time.Time, error) {
	i, err := load(dir)
	switch {
	case err != nil:
		return time.Time{}, err
	case i == nil:
		return time.Time{}, fmt.Errorf("credential: folder %s has none: %w", dir, fs.ErrNotExist)
	}
	return i.material.Certificate.Leaf.NotAfter, nil
}

func save(dir string, s *stored) error {
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	if err := durable.Write(filepath.Join(dir, FileName), data); err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	return nil
}
