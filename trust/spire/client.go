package spire

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust"
)

const (
	callTimeout = 10 * time.Second // of one call, waiting for the server to come up included
	pageSize    = 500
	batchSize   = 100
	maxAnswer   = 64 << 20 // bytes
)

// Client talks to one server's administrative socket. Safe for concurrent use, but one Reconcile at a time.
type Client struct {
	conn          *grpc.ClientConn
	bundles       bundlev1.BundleClient
	entries       entryv1.EntryClient
	relationships trustdomainv1.TrustDomainClient
	address       string // for people
	scan          *scan  // of the entries; Reconcile's
}

// Dial prepares a client for the server socket, a path or unix:///path. It connects when first used.
func Dial(socket string) (*Client, error) {
	path := strings.TrimPrefix(socket, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("SPIRE server address %q: want unix:///path", socket)
	}
	return dial("unix://"+path, insecure.NewCredentials()) // the socket's file mode is the protection
}

// DialTCP prepares a client for the server's API at host:port, for who is not on the server's machine. The server must
// be the SPIRE server of domain; source is an SVID of domain whose registration entry is marked admin.
func DialTCP(address string, domain spiffeid.TrustDomain, source trust.Source) (*Client, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("SPIRE server address: %w", err)
	}
	server, err := spiffeid.FromPath(domain, "/spire/server")
	if err != nil {
		return nil, fmt.Errorf("SPIRE server address %q: %w", address, err)
	}
	return dial("dns:///"+address, credentials.NewTLS(trust.ClientConfig(source, trust.AuthorizeOneOf(server))))
}

func dial(target string, proof credentials.TransportCredentials) (*Client, error) {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(proof),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: callTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUnaryInterceptor(withTimeout),
	)
	if err != nil {
		return nil, fmt.Errorf("SPIRE server %s: %w", target, err)
	}
	return &Client{
		address: target, scan: &scan{}, conn: conn, bundles: bundlev1.NewBundleClient(conn), entries: entryv1.NewEntryClient(conn),
		relationships: trustdomainv1.NewTrustDomainClient(conn),
	}, nil
}

func withTimeout(ctx context.Context, method string, q, a any, conn *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, method, q, a, conn, o...)
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// OwnBundle is the bundle of the server's own trust domain.
func (c *Client) OwnBundle(ctx context.Context) (*trust.Bundle, error) {
	b, err := c.bundles.GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return nil, c.explain(fmt.Errorf("own bundle: %w", err))
	}
	own, err := bundleOf(b)
	if err != nil {
		return nil, fmt.Errorf("own bundle: %w", err)
	}
	return own, nil
}

// held lists the foreign bundles of the server.
func (c *Client) held(ctx context.Context) (map[spiffeid.TrustDomain]*trust.Bundle, error) {
	all, token := make(map[spiffeid.TrustDomain]*trust.Bundle), ""
	for {
		page, err := c.bundles.ListFederatedBundles(ctx, &bundlev1.ListFederatedBundlesRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("federated bundles: %w", err)
		}
		for _, b := range page.Bundles {
			parsed, err := bundleOf(b)
			if err != nil {
				return nil, fmt.Errorf("federated bundles: %w", err)
			}
			all[parsed.TrustDomain] = parsed
		}
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// bundleOf reads a bundle as the SPIRE API carries it. It may be without keys.
func bundleOf(b *types.Bundle) (*trust.Bundle, error) {
	domain, err := spiffeid.TrustDomainFromString(b.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	var roots []*x509.Certificate
	for i, c := range b.X509Authorities {
		root, err := x509.ParseCertificate(c.GetAsn1())
		if err != nil {
			return nil, fmt.Errorf("bundle of %q: X.509 authority %d: %w", domain.Name(), i, err)
		}
		roots = append(roots, root)
	}
	keys := make(map[string]crypto.PublicKey)
	for _, k := range b.JwtAuthorities {
		key, err := x509.ParsePKIXPublicKey(k.GetPublicKey())
		if err != nil {
			return nil, fmt.Errorf("bundle of %q: JWT key %q: %w", domain.Name(), k.GetKeyId(), err)
		}
		keys[k.KeyId] = key
	}
	parsed := trust.NewBundle(domain, b.SequenceNumber, roots, keys)
	parsed.RefreshHint = time.Duration(b.RefreshHint) * time.Second
	return parsed, nil
}

// wireOf is the reverse of bundleOf.
func wireOf(b *trust.Bundle) (*types.Bundle, error) {
	w := &types.Bundle{TrustDomain: b.TrustDomain.Name(), SequenceNumber: b.Sequence, RefreshHint: int64(b.RefreshHint / time.Second)}
	for _, root := range b.X509 {
		w.X509Authorities = append(w.X509Authorities, &types.X509Certificate{Asn1: root.Raw})
	}
	for id, key := range b.JWT {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("bundle of %q: JWT key %q: %w", b.TrustDomain.Name(), id, err)
		}
		w.JwtAuthorities = append(w.JwtAuthorities, &types.JWTKey{PublicKey: der, KeyId: id})
	}
	return w, nil
}

// outcome turns the status of a batch's item into an error.
func outcome(s *types.Status) error {
	if s.GetCode() == int32(codes.OK) {
		return nil
	}
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}
