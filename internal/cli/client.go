package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/api/periplus/v1/periplusv1connect"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

// dialTimeout bounds the try of one replica, callTimeout a call as a whole; a dead host must not eat the patience of a
// person.
const (
	dialTimeout = 3 * time.Second
	callTimeout = 30 * time.Second
)

// Client is the admin API of one mesh, at whichever replica answers.
type Client struct {
	Clusters periplusv1connect.ClusterServiceClient
	Policies periplusv1connect.PolicyServiceClient
	Mesh     periplusv1connect.MeshServiceClient
}

// Connect makes a client. Nothing is dialled before the first call.
func (c Context) Connect() (*Client, error) {
	source, err := c.source()
	if err != nil {
		return nil, err
	}
	plane, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("context: trust domain %q: %w", c.TrustDomain, err)
	}
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.dial(ctx, trust.ClientConfig(source, controllerOf(plane)))
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute,
	}
	return NewClient(&http.Client{Transport: transport}, "https://periplus"), nil
}

// NewClient makes a client over any HTTP client. A call lasts half a minute at most.
func NewClient(client *http.Client, base string) *Client {
	bounded := connect.WithInterceptors(connect.UnaryInterceptorFunc(bound))
	return &Client{
		Clusters: periplusv1connect.NewClusterServiceClient(client, base, bounded),
		Policies: periplusv1connect.NewPolicyServiceClient(client, base, bounded),
		Mesh:     periplusv1connect.NewMeshServiceClient(client, base, bounded),
	}
}

// bound ends calls that get no answer, and says what that means.
func bound(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		short, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		response, err := next(short, request)
		if err == nil || short.Err() == nil || ctx.Err() != nil {
			return response, err
		}
		text := fmt.Sprintf("the controller gave no answer within %v", callTimeout)
		if request.Spec().IdempotencyLevel != connect.IdempotencyNoSideEffects {
			text += "; the change may have been made or not, it can be asked for again"
		}
		return nil, connect.NewError(connect.CodeDeadlineExceeded, errors.New(text))
	}
}

func controllerOf(plane spiffeid.TrustDomain) trust.Authorizer {
	return func(id spiffeid.ID) error {
		role, _, err := mesh.ParsePlaneIdentity(id)
		if err != nil || role != mesh.RoleController || id.TrustDomain() != plane {
			return fmt.Errorf("peer is %q, want a controller of %q", id, plane.Name())
		}
		return nil
	}
}

// dial tries the replicas in order, handshake included: a replica that is stopped must not hold up the command.
func (c Context) dial(ctx context.Context, config *tls.Config) (net.Conn, error) {
	var failures []error
	for _, server := range c.Servers {
		attempt, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := (&tls.Dialer{Config: config}).DialContext(attempt, "tcp", strings.TrimPrefix(server, "https://"))
		cancel()
		if err == nil {
			return conn, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", server, err))
	}
	return nil, Exit(ExitTempFail, fmt.Errorf("no controller answers: %w", errors.Join(failures...)))
}

func (c Context) source() (trust.Source, error) {
	certificate, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("context: operator certificate: %w", err)
	}
	roots, err := readCertificates(c.Authority)
	if err != nil {
		return nil, fmt.Errorf("context: certificate authority: %w", err)
	}
	id, err := trust.LeafID(certificate.Leaf)
	if err != nil {
		return nil, fmt.Errorf("context: operator certificate: %w", err)
	}
	return watch.New(&trust.Material{
		ID: id, Certificate: &certificate,
		Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{id.TrustDomain(): roots},
	}), nil
}

func readCertificates(path string) (out []*x509.Certificate, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, certificate)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no certificate in it", path)
	}
	return out, nil
}

// ReadInput reads a file, or standard input for "-".
func ReadInput(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(stdin, 1<<20+1))
	}
	return os.ReadFile(path)
}
