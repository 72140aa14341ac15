package credential

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust"
)

// Waits between two rounds over all controllers, before jitter.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// registerTimeout bounds the wait for a registration: longer than an election takes. Whoever gives up earlier may find
// that its token was used, by itself.
const registerTimeout = 30 * time.Second

// pendingKeyName holds the key of a registration that has not been answered yet: an agent that dies after the
// token was spent and before the answer arrived asks again with the same key, and may be given the same answer.
const pendingKeyName = "registration.key"

// register trades the token for a credential on disk.
func register(ctx context.Context, c Config, token jointoken.Token) (*identity, error) {
	key, err := pendingKey(c.DataDir)
	if err != nil {
		return nil, err
	}
	csr, err := certificateRequest(key)
	if err != nil {
		return nil, err
	}
	request := &pb.RegisterRequest{
		TokenSecret: token.Secret, Cluster: token.Cluster, TrustDomain: token.TrustDomain, Csr: csr, AgentVersion: c.Version,
	}
	wait := firstRetry
	for {
		response, err := registerOnce(ctx, c, token, request)
		if err == nil {
			return accept(c, token, key, response)
		}
		if !temporary(err) {
			return nil, fmt.Errorf("register cluster %q: %s", token.Cluster, status.Convert(err).Message())
		}
		c.Log.Warn("no controller could be asked to register; trying again", "cluster", token.Cluster, "err", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("register cluster %q: %w (last: %w)", token.Cluster, ctx.Err(), err)
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, lastRetry)
	}
}

func accept(c Config, token jointoken.Token, key crypto.Signer, response *pb.RegisterResponse) (*identity, error) {
	cluster, err := meshpb.Decode(&pb.Object{Kind: &pb.Object_Cluster{Cluster: response.GetCluster()}})
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	i, err := receive(response.GetCredential(), key, meshpb.Marshal(cluster), jointoken.Hash(token.Secret))
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	if string(i.cluster.ID) != token.Cluster || i.cluster.TrustDomain.Name() != token.TrustDomain || i.plane.Name() != token.Plane {
		return nil, fmt.Errorf("register: controller registered cluster %q of %q at %q, the token says %q of %q at %q",
			i.cluster.ID, i.cluster.TrustDomain.Name(), i.plane.Name(), token.Cluster, token.TrustDomain, token.Plane)
	}
	if err := save(c.DataDir, i.stored); err != nil {
		return nil, err
	}
	return i, os.Remove(filepath.Join(c.DataDir, pendingKeyName))
}

// registerOnce asks each controller of the token until one answers.
func registerOnce(ctx context.Context, c Config, token jointoken.Token, request *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	config, err := pinned(token)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, address := range token.Controllers {
		var response *pb.RegisterResponse
		err := call(ctx, c, address, config, registerTimeout, func(ctx context.Context, client pb.AgentServiceClient) (err error) {
			response, err = client.Register(ctx, request)
			return err
		})
		if err == nil || !temporary(err) {
			return response, err
		}
		errs = append(errs, fmt.Errorf("controller %s: %w", address, err))
	}
	return nil, unreachable{errors.Join(errs...)}
}

// pinned verifies a controller by the root that the token names, and by nothing that the network says.
func pinned(token jointoken.Token) (*tls.Config, error) {
	plane, err := spiffeid.TrustDomainFromString(token.Plane)
	if err != nil {
		return nil, fmt.Errorf("join token: control plane %q: %w", token.Plane, err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by VerifyConnection: the root is pinned by its hash
		VerifyConnection: func(state tls.ConnectionState) error {
			root, err := token.Root(state.PeerCertificates)
			if err != nil {
				return err
			}
			m := trust.Material{Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{plane: {root}}}
			id, err := m.Verify(state.PeerCertificates)
			if err != nil {
				return err
			}
			return AuthorizeController(plane)(id)
		},
	}, nil
}

// call dials one controller, within CallTimeout, for one call.
func call(ctx context.Context, c Config, address string, config *tls.Config, timeout time.Duration, do func(context.Context, pb.AgentServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: c.CallTimeout}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return c.Dial(ctx, address) }))
	if err != nil {
		return err
	}
	defer connection.Close()
	return do(ctx, pb.NewAgentServiceClient(connection))
}

// unreachable wraps the errors of all controllers, none of which judged the request.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// temporary tells whether a later attempt may succeed without anybody doing anything.
func temporary(err error) bool {
	if errors.As(err, &unreachable{}) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if strings.Contains(err.Error(), "does not belong to the control plane") {
		return false // a wrong root will be wrong tomorrow
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

func pendingKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, pendingKeyName)
	if der, err := os.ReadFile(path); err == nil {
		if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = durable.Write(path, der)
	}
	if err != nil {
		return nil, fmt.Errorf("registration key: %w", err)
	}
	return key, nil
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return key, nil
}

func certificateRequest(key crypto.Signer) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return csr, nil
}

// jitter spreads d over half to one and a half of it, so that agents that failed together do not return together.
func jitter(d time.Duration) time.Duration { return d/2 + mathrand.N(d) }
