package registry

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust"
)

// refusal is an error that the agent is shown, and the label it is counted under.
type refusal struct {
	code    codes.Code
	outcome string
	text    string
}

func refuse(code codes.Code, outcome, format string, args ...any) *refusal {
	return &refusal{code, outcome, fmt.Sprintf(format, args...)}
}

// Register implements AgentService.Register. It is the one call that needs no client certificate.
func (r *Registry) Register(ctx context.Context, request *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	client, err := peer.FromContext(ctx)
	if err != nil && !errors.Is(err, trust.ErrUnverified) {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	response, refused := r.register(ctx, request, client.Address, time.Now())
	return response, r.done("register", request.GetCluster(), client.Address, refused)
}

// done counts and audits.
func (r *Registry) done(operation, cluster, address string, refused *refusal) error {
	if refused == nil {
		r.metrics.WithLabelValues(operation, "done").Inc()
		r.config.Log.Info("credential issued", "audit", true, "operation", operation, "cluster", cluster, "peer", address)
		return nil
	}
	r.metrics.WithLabelValues(operation, refused.outcome).Inc()
	r.config.Log.Warn("credential refused", "audit", true, "operation", operation, "cluster", cluster, "peer", address, "err", refused.text)
	return status.Error(refused.code, refused.text)
}

func (r *Registry) register(ctx context.Context, request *pb.RegisterRequest, address string, now time.Time) (*pb.RegisterResponse, *refusal) {
	if r.throttled(address, now) {
		return nil, refuse(codes.ResourceExhausted, "throttled", "more than %d attempts a minute from this address; wait a minute", attemptsPerMinute)
	}
	public, err := publicKey(request.GetCsr())
	if err != nil {
		return nil, refuse(codes.InvalidArgument, "malformed", "certificate request: %v", err)
	}
	key, err := thumbprint(public)
	if err != nil {
		return nil, refuse(codes.InvalidArgument, "malformed", "certificate request: %v", err)
	}
	token, refused := r.find(ctx, request, key, now)
	if refused != nil {
		return nil, refused
	}
	cluster, refused := r.use(ctx, token, key, now)
	if refused != nil {
		return nil, refused
	}
	r.forgive(address)
	credential, err := r.credential(public, cluster)
	if err != nil {
		return nil, refuse(codes.Internal, "failed", "the token is used, but issuing failed: %v; ask for a new token", err)
	}
	return &pb.RegisterResponse{Credential: credential, Cluster: meshpb.EncodeCluster(cluster)}, nil
}

// find returns the token if it may be used with a key: for the first time, or by who used it, as the answer to that may have
// been lost.
func (r *Registry) find(ctx context.Context, request *pb.RegisterRequest, key string, now time.Time) (*mesh.JoinToken, *refusal) {
	hash := jointoken.Hash(request.GetTokenSecret())
	token := r.lookup(hash)
	if token == nil {
		// It may have been issued a moment ago on another replica.
		if err := r.config.Proposer.Barrier(ctx); err != nil {
			return nil, refuse(codes.Unavailable, "unavailable", "%v", err)
		}
		token = r.lookup(hash)
	}
	switch {
	case token == nil || subtle.ConstantTimeCompare([]byte(token.Hash), []byte(hash)) != 1:
		return nil, refuse(codes.PermissionDenied, "unknown", "join token is unknown: it is wrong, or a newer one replaced it; run periplus cluster register again")
	case string(token.Cluster.ID) != request.GetCluster():
		return nil, refuse(codes.PermissionDenied, "foreign", "join token is for cluster %q, not %q", token.Cluster.ID, request.GetCluster())
	case token.Cluster.TrustDomain.Name() != request.GetTrustDomain():
		return nil, refuse(codes.PermissionDenied, "foreign", "join token is for trust domain %q, not %q", token.Cluster.TrustDomain.Name(), request.GetTrustDomain())
	case token.UsedAtMillis != 0 && token.UsedBy != key:
		return nil, refuse(codes.PermissionDenied, "used", "join token was used at %s; run periplus cluster register again for a new one", date(token.UsedAtMillis))
	case now.UnixMilli() >= token.ExpiresAtMillis:
		return nil, refuse(codes.PermissionDenied, "expired", "join token expired at %s; run periplus cluster register again for a new one", date(token.ExpiresAtMillis))
	}
	return token, nil
}

func date(millis int64) string { return time.UnixMilli(millis).UTC().Format(time.RFC3339) }

func (r *Registry) lookup(hash string) *mesh.JoinToken {
	snapshot, _ := r.config.Store.Latest()
	object, _ := snapshot.Get(mesh.JoinTokenKey(hash))
	token, _ := object.(*mesh.JoinToken)
	return token
}

// use marks the token as used with a key, which only one caller in the mesh can do, and returns the cluster.
func (r *Registry) use(ctx context.Context, token *mesh.JoinToken, key string, now time.Time) (*mesh.Cluster, *refusal) {
	if token.UsedAtMillis == 0 {
		if refused := r.mark(ctx, token, key, now); refused != nil {
			return nil, refused
		}
	}
	snapshot, _ := r.config.Store.Latest()
	cluster := snapshot.Cluster(token.Cluster.ID)
	switch used := r.lookup(token.Hash); {
	case cluster == nil:
		return nil, refuse(codes.PermissionDenied, "foreign", "cluster %q was removed", token.Cluster.ID)
	case used == nil || used.UsedBy != key:
		return nil, refuse(codes.PermissionDenied, "used", "join token was used just now by somebody else; run periplus cluster register again for a new one")
	case used.Cluster.CredentialGeneration != cluster.CredentialGeneration:
		return nil, refuse(codes.PermissionDenied, "used", "join token was used before the cluster's credential was rotated; run periplus cluster register again for a new one")
	}
	return cluster, nil
}

// mark is no refusal if somebody else was faster: who it was says the token.
func (r *Registry) mark(ctx context.Context, token *mesh.JoinToken, key string, now time.Time) *refusal {
	used := *token
	used.UsedAtMillis, used.UsedBy = now.UnixMilli(), key
	snapshot, _ := r.config.Store.Latest()
	if cluster := snapshot.Cluster(token.Cluster.ID); cluster != nil {
		used.Cluster.CredentialGeneration = cluster.CredentialGeneration
	}
	if _, err := r.config.Proposer.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{{
		Guards: []*pb.Guard{unchanged(token.Key(), token)}, Upserts: []*pb.Object{meshpb.Encode(&used)},
	}}}); err != nil {
		return refuse(codes.Unavailable, "unavailable", "%v", err)
	}
	return nil
}

// thumbprint is the SHA-256 of a public key, hex.
func thumbprint(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Rotate implements AgentService.Rotate. A replica whose state is not complete knows of no revocation, nor of the cluster.
func (r *Registry) Rotate(ctx context.Context, request *pb.RotateRequest) (*pb.RotateResponse, error) {
	select {
	case <-r.config.Store.Ready():
	default:
		return nil, status.Error(codes.Unavailable, "this replica is not ready yet")
	}
	cluster, client, err := r.agent(ctx)
	if err != nil {
		return nil, r.done("rotate", "", client.Address, refuse(codes.PermissionDenied, "refused", "%v", err))
	}
	public, err := publicKey(request.GetCsr())
	if err != nil {
		return nil, r.done("rotate", string(cluster.ID), client.Address, refuse(codes.InvalidArgument, "malformed", "certificate request: %v", err))
	}
	credential, err := r.credential(public, cluster)
	if err != nil {
		return nil, r.done("rotate", string(cluster.ID), client.Address, refuse(codes.Internal, "failed", "%v", err))
	}
	return &pb.RotateResponse{Credential: credential}, r.done("rotate", string(cluster.ID), client.Address, nil)
}

// agent is the cluster whose agent the verified client is.
func (r *Registry) agent(ctx context.Context) (*mesh.Cluster, peer.Identity, error) {
	client, err := peer.FromContext(ctx)
	if err != nil {
		return nil, client, err
	}
	snapshot, _ := r.config.Store.Latest()
	cluster, err := Agent(snapshot, r.config.Issuer, client)
	return cluster, client, err
}

// Agent returns the registered cluster whose agent the client is, if its credential is admitted.
func Agent(s *mesh.Snapshot, issuer *pki.Issuer, client peer.Identity) (*mesh.Cluster, error) {
	name, err := client.Plane(issuer.TrustDomain(), mesh.RoleAgent)
	if err != nil {
		return nil, err
	}
	generation, err := pki.AgentGeneration(client.Leaf)
	if err != nil {
		return nil, err
	}
	cluster := s.Cluster(mesh.ClusterID(name))
	if err := Admits(cluster, generation); err != nil {
		return nil, fmt.Errorf("agent of %q: %w", name, err)
	}
	if err := issuerIsMember(s, client.Authority, time.Now()); err != nil {
		return nil, fmt.Errorf("agent of %q: %w", name, err)
	}
	return cluster, nil
}

// issuerIsMember refuses what a removed replica issued, once every credential has ended that it issued as a member.
func issuerIsMember(s *mesh.Snapshot, replica string, now time.Time) error {
	removed := s.RemovedReplica(replica)
	if removed == nil || now.Before(time.UnixMilli(removed.RemovedAtMillis).Add(pki.AgentTTL)) {
		return nil
	}
	return fmt.Errorf("credential was issued by replica %q, which was removed", replica)
}

func (r *Registry) credential(public crypto.PublicKey, cluster *mesh.Cluster) (*pb.Credential, error) {
	chain, err := r.config.Issuer.IssueAgent(public, string(cluster.ID), cluster.CredentialGeneration)
	if err != nil {
		return nil, err
	}
	domain := r.config.Issuer.TrustDomain()
	bundle, err := trust.NewBundle(domain, 1, r.config.Issuer.Roots(), nil).Marshal()
	if err != nil {
		return nil, err
	}
	return &pb.Credential{Certificates: chain, Bundle: bundle, TrustDomain: domain.Name(), Controllers: r.config.Controllers()}, nil
}

// publicKey reads a PKCS #10 request; the signature proves that the caller has the private key.
func publicKey(csr []byte) (crypto.PublicKey, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return request.PublicKey, nil
}
