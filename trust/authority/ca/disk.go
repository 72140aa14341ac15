package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// document is the state on disk. Fields are only ever added.
type document struct {
	TrustDomain   string            `json:"trust_domain"`
	Sequence      uint64            `json:"sequence"`
	Roots         []rootDocument    `json:"roots"`
	Entries       []json.RawMessage `json:"entries,omitempty"`
	Bundles       []json.RawMessage `json:"bundles,omitempty"`
	Relationships []json.RawMessage `json:"relationships,omitempty"`
}

type rootDocument struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // PKCS#8 DER
	Phase       Phase  `json:"phase"`
	Tainted     bool   `json:"tainted,omitempty"`
}

func encodeState(domain spiffeid.TrustDomain, s *State) ([]byte, error) {
	d := document{TrustDomain: domain.Name(), Sequence: s.sequence}
	for _, r := range s.roots {
		key, err := x509.MarshalPKCS8PrivateKey(r.key)
		if err != nil {
			return nil, fmt.Errorf("root key: %w", err)
		}
		d.Roots = append(d.Roots, rootDocument{r.certificate.Raw, key, r.phase, r.tainted})
	}
	return d.encode(s)
}

func (d *document) encode(s *State) (data []byte, err error) {
	if d.Entries, err = encodeAll(s.Entries); err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	if d.Bundles, err = encodeAll(s.Bundles); err != nil {
		return nil, fmt.Errorf("bundles: %w", err)
	}
	if d.Relationships, err = encodeAll(s.Relationships); err != nil {
		return nil, fmt.Errorf("relationships: %w", err)
	}
	return json.Marshal(d)
}

func encodeAll[M proto.Message](messages map[string]M) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for _, m := range messages {
		data, err := protojson.Marshal(m)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func decodeState(domain spiffeid.TrustDomain, data []byte) (*State, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	if d.TrustDomain != domain.Name() {
		return nil, fmt.Errorf("belongs to trust domain %q, not %q: use another data folder", d.TrustDomain, domain.Name())
	}
	s := newState()
	s.sequence = d.Sequence
	for i, r := range d.Roots {
		root, err := r.root()
		if err != nil {
			return nil, fmt.Errorf("root %d: %w", i, err)
		}
		s.roots = append(s.roots, root)
	}
	return s, errors.Join(
		decodeAll(d.Entries, s.Entries, (*types.Entry).GetId, func() *types.Entry { return &types.Entry{} }),
		decodeAll(d.Bundles, s.Bundles, (*types.Bundle).GetTrustDomain, func() *types.Bundle { return &types.Bundle{} }),
		decodeAll(d.Relationships, s.Relationships, (*types.FederationRelationship).GetTrustDomain,
			func() *types.FederationRelationship { return &types.FederationRelationship{} }),
	)
}

func decodeAll[M proto.Message](all []json.RawMessage, into map[string]M, key func(M) string, empty func() M) error {
	for _, data := range all {
		m := empty()
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
			return fmt.Errorf("%T: %w", m, err)
		}
		into[key(m)] = m
	}
	return nil
}

func (d rootDocument) root() (*Root, error) {
	certificate, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(d.Key)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key is a %T, which cannot sign", parsed)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(certificate.PublicKey) {
		return nil, errors.New("key and certificate do not belong together")
	}
	return &Root{certificate, key, d.Phase, d.Tainted}, nil
}
