package jointoken

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Prefix begins every token; it names the version of the format.
const Prefix = "periplus-join-v1."

const (
	secretBytes    = 32
	maxBytes       = 16 << 10
	maxControllers = 32
)

// Token is what a token file says.
type Token struct {
	// Secret is 32 random bytes, base64url without padding. It is shown once and must not be logged.
	Secret string `json:"secret"`
	// Cluster and TrustDomain are what the token is bound to: it registers no other.
	Cluster     string `json:"cluster"`
	TrustDomain string `json:"trust_domain"`
	// Plane is the trust domain of the control plane.
	Plane string `json:"plane"`
	// Controllers are the replicas, host:port, at least one.
	Controllers []string `json:"controllers"`
	// RootSHA256 is the hex SHA-256 of the control plane's root certificate (DER).
	RootSHA256 string `json:"root_sha256"`
	// ExpiresUnix is in seconds. It is for messages; the controllers decide.
	ExpiresUnix int64 `json:"expires"`
}

// NewSecret draws a secret.
func NewSecret() string {
	secret := make([]byte, secretBytes)
	rand.Read(secret) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(secret)
}

// Hash is how the controllers know a secret: hex SHA-256.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Text is the token as it is written to a file.
func (t Token) Text() string {
	data, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("jointoken: marshal: %v", err)) // strings and numbers only
	}
	return Prefix + base64.RawURLEncoding.EncodeToString(data)
}

// String hides the secret, so that a token can be logged.
func (t Token) String() string {
	return fmt.Sprintf("join token for cluster %q (secret hidden)", t.Cluster)
}

// Expires is when the controllers will refuse the token.
func (t Token) Expires() time.Time { return time.Unix(t.ExpiresUnix, 0) }

// Parse reads what [Token.Text] wrote; white space around it does not matter.
func Parse(text string) (Token, error) {
	var t Token
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, Prefix)
	switch {
	case len(text) > maxBytes:
		return t, fmt.Errorf("join token: %d bytes, at most %d; is it the right file?", len(text), maxBytes)
	case !ok:
		return t, fmt.Errorf("join token: does not begin with %q; is it the right file?", Prefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return t, fmt.Errorf("join token: damaged, copy it again: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&t); err != nil {
		return Token{}, fmt.Errorf("join token: damaged, copy it again: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Token{}, errors.New("join token: damaged, copy it again: data after the end")
	}
	if err := t.validate(); err != nil {
		return Token{}, fmt.Errorf("join token: %w", err)
	}
	return t, nil
}

func (t Token) validate() error {
	secret, err := base64.RawURLEncoding.DecodeString(t.Secret)
	hash, hashErr := hex.DecodeString(t.RootSHA256)
	switch {
	case err != nil || len(secret) != secretBytes:
		return errors.New("secret is not 32 bytes")
	case t.Cluster == "" || t.TrustDomain == "" || t.Plane == "":
		return errors.New("cluster, trust domain or control plane missing")
	case hashErr != nil || len(hash) != sha256.Size:
		return errors.New("hash of the root is not SHA-256")
	case len(t.Controllers) == 0 || len(t.Controllers) > maxControllers:
		return fmt.Errorf("%d controllers, want 1..%d", len(t.Controllers), maxControllers)
	}
	for _, address := range t.Controllers {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("controller %q: want host:port: %w", address, err)
		}
	}
	return nil
}

// Root finds, in the chain that a controller presented, the root that the token names. Controllers present it as
// the last certificate of their chain. The caller then verifies the chain against it, and nothing else.
func (t Token) Root(chain []*x509.Certificate) (*x509.Certificate, error) {
	for i := len(chain) - 1; i >= 0; i-- {
		sum := sha256.Sum256(chain[i].Raw)
		if hex.EncodeToString(sum[:]) == strings.ToLower(t.RootSHA256) {
			return chain[i], nil
		}
	}
	return nil, errors.New("controller does not belong to the control plane that made the join token (its root differs)")
}
