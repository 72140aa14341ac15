package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// MaxTokenTTL is how long a join token lives at most, and by default.
const MaxTokenTTL = 15 * time.Minute

// attemptsPerMinute is how often one origin may try to register.
const attemptsPerMinute = 5

// Proposer orders commands; *replica.Replica is one.
type Proposer interface {
	Propose(ctx context.Context, command *pb.Command) (*pb.CommandResult, error)
	// Barrier returns once the store reflects all that was acknowledged before.
	Barrier(ctx context.Context) error
}

// Config of a registry; all fields are needed.
type Config struct {
	Store    *mesh.Store
	Proposer Proposer
	Issuer   *pki.Issuer
	// Controllers are the mesh addresses of all replicas, host:port.
	Controllers func() []string
	Log         *slog.Logger
	Metrics     prometheus.Registerer
}

// Registry serves registrations. Safe for concurrent use.
type Registry struct {
	config  Config
	metrics *prometheus.CounterVec

	mu       sync.Mutex
	attempts map[string][]time.Time // guarded by mu; by origin, within the last minute
}

// New checks the configuration.
func New(c Config) (*Registry, error) {
	if c.Store == nil || c.Proposer == nil || c.Issuer == nil || c.Controllers == nil || c.Log == nil || c.Metrics == nil {
		return nil, errors.New("registry: every field of Config is needed")
	}
	r := &Registry{config: c, attempts: make(map[string][]time.Time), metrics: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "periplus_registry_credentials_total", Help: "Attempts to register or rotate, by outcome.",
	}, []string{"operation", "outcome"})}
	if err := c.Metrics.Register(r.metrics); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return r, nil
}

// Admits says why a credential of this generation is refused for a cluster (nil: not registered), or nil.
func Admits(c *mesh.Cluster, generation uint64) error {
	switch {
	case c == nil:
		return errors.New("cluster is not registered, or was removed")
	case generation+1 < c.CredentialGeneration:
		return fmt.Errorf("credential of cluster %q was revoked (generation %d, now %d); join again with a new token", c.ID, generation, c.CredentialGeneration)
	}
	return nil
}

// Errors of Issue that callers tell apart.
var (
	// ErrConflict: the cluster exists and differs, or its trust domain is taken.
	ErrConflict = errors.New("conflict")
	// ErrInvalid: the request can never succeed.
	ErrInvalid = errors.New("invalid")
)

// Issued is a new token.
type Issued struct {
	Cluster *mesh.Cluster
	Token   jointoken.Token
	Expires time.Time
}

// Issue registers the cluster, unless it is registered already, and makes a new token for it; unused older tokens
// of the cluster end. Region and trust domain of a registered cluster cannot change; networks and namespaces can.
func (r *Registry) Issue(ctx context.Context, want *mesh.Cluster, ttl time.Duration, author string, now time.Time) (*Issued, error) {
	if ttl <= 0 || ttl > MaxTokenTTL {
		ttl = MaxTokenTTL
	}
	for range 3 { // somebody else may change the cluster meanwhile
		issued, done, err := r.issue(ctx, want, ttl, author, now)
		if err != nil || done {
			return issued, err
		}
	}
	return nil, fmt.Errorf("cluster %q: %w: it is being changed by others, try again", want.ID, ErrConflict)
}

func (r *Registry) issue(ctx context.Context, want *mesh.Cluster, ttl time.Duration, author string, now time.Time) (*Issued, bool, error) {
	snapshot, _ := r.config.Store.Latest()
	held := snapshot.Cluster(want.ID)
	cluster, err := r.reconcile(snapshot, held, want, now)
	if err != nil {
		return nil, false, err
	}
	secret, expires := jointoken.NewSecret(), now.Add(ttl)
	token := &mesh.JoinToken{Hash: jointoken.Hash(secret), Cluster: *cluster, ExpiresAtMillis: expires.UnixMilli(), Author: author}
	part := &pb.CommandPart{
		Guards:  []*pb.Guard{unchanged(cluster.Key(), held)},
		Upserts: []*pb.Object{meshpb.Encode(cluster), meshpb.Encode(token)},
		Deletes: superseded(snapshot, want.ID, now),
	}
	result, err := r.config.Proposer.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{part}})
	if err != nil || !result.GetApplied()[0] {
		return nil, false, wrap(want.ID, err)
	}
	if held == nil {
		if err := r.checkDomainAgain(ctx, cluster, result.GetIndex()); err != nil {
			return nil, false, err
		}
	}
	r.config.Log.Info("join token issued", "audit", true, "cluster", string(cluster.ID), "author", author, "expires", expires)
	return &Issued{Cluster: cluster, Expires: expires, Token: jointoken.Token{
		Secret: secret, Cluster: string(cluster.ID), TrustDomain: cluster.TrustDomain.Name(), Plane: r.config.Issuer.TrustDomain().Name(),
		Controllers: r.config.Controllers(), RootSHA256: r.config.Issuer.RootHash(), ExpiresUnix: expires.Unix(),
	}}, true, nil
}

func wrap(id mesh.ClusterID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cluster %q: %w", id, err)
}

// reconcile says what the cluster becomes.
func (r *Registry) reconcile(s *mesh.Snapshot, held, want *mesh.Cluster, now time.Time) (*mesh.Cluster, error) {
	cluster := *want
	cluster.State, cluster.CredentialGeneration, cluster.RegisteredAtMillis = mesh.ClusterActive, 1, now.UnixMilli()
	if err := cluster.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := r.domainIsFree(s, &cluster); err != nil {
		return nil, err
	}
	if held == nil {
		return &cluster, nil
	}
	switch {
	case held.Region != want.Region:
		return nil, fmt.Errorf("cluster %q: %w: it is registered in region %q, not %q; remove it first, or use another name", want.ID, ErrConflict, held.Region, want.Region)
	case held.TrustDomain != want.TrustDomain:
		return nil, fmt.Errorf("cluster %q: %w: it is registered with trust domain %q, not %q; remove it first, or use another name", want.ID, ErrConflict, held.TrustDomain.Name(), want.TrustDomain.Name())
	}
	cluster.State, cluster.CredentialGeneration, cluster.RegisteredAtMillis = held.State, held.CredentialGeneration, held.RegisteredAtMillis
	return &cluster, nil
}

// domainIsFree refuses a trust domain that is another cluster's or the control plane's.
func (r *Registry) domainIsFree(s *mesh.Snapshot, c *mesh.Cluster) error {
	if c.TrustDomain == r.config.Issuer.TrustDomain() {
		return fmt.Errorf("cluster %q: %w: trust domain %q is the control plane's own", c.ID, ErrConflict, c.TrustDomain.Name())
	}
	for other := range s.Clusters() {
		if other.ID != c.ID && other.TrustDomain == c.TrustDomain {
			return fmt.Errorf("cluster %q: %w: trust domain %q belongs to cluster %q", c.ID, ErrConflict, c.TrustDomain.Name(), other.ID)
		}
	}
	return nil
}

// checkDomainAgain takes a new cluster back if another one claimed its trust domain at the same moment: guards are
// on keys, and the two have different ones. Both may be taken back; none keeps a domain that is not its alone: the later
// one sees the earlier one in the state at its own index.
func (r *Registry) checkDomainAgain(ctx context.Context, c *mesh.Cluster, index uint64) error {
	snapshot, _ := r.config.Store.Latest()
	if uint64(snapshot.Revision()) < index { // this replica lags
		if err := r.config.Proposer.Barrier(ctx); err != nil {
			return fmt.Errorf("cluster %q: whether trust domain %q is its alone is not known: %w; register it again", c.ID, c.TrustDomain.Name(), err)
		}
		snapshot, _ = r.config.Store.Latest()
	}
	taken := r.domainIsFree(snapshot, c)
	if taken == nil {
		return nil
	}
	part := &pb.CommandPart{Guards: []*pb.Guard{unchanged(c.Key(), c)}, Deletes: append(superseded(snapshot, c.ID, time.Time{}), string(c.Key()))}
	if _, err := r.config.Proposer.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{part}}); err != nil {
		return errors.Join(taken, err)
	}
	return taken
}

// superseded are the unused tokens of a cluster, and every token that ended more than a day ago.
func superseded(s *mesh.Snapshot, cluster mesh.ClusterID, now time.Time) (keys []string) {
	for key, object := range s.Scan(string(mesh.KindJoinToken) + "/") {
		token, ok := object.(*mesh.JoinToken)
		old := ok && time.UnixMilli(token.ExpiresAtMillis).Add(24*time.Hour).Before(now)
		if ok && (old || token.Cluster.ID == cluster && token.UsedAtMillis == 0) {
			keys = append(keys, string(key))
		}
	}
	return keys
}

// unchanged guards that key still holds held; nil: nothing.
func unchanged[T interface {
	mesh.Object
	comparable
}](key mesh.Key, held T) *pb.Guard {
	guard := &pb.KeyGuard{Key: string(key)}
	var none T
	if held != none {
		digest := meshpb.Digest(held)
		guard.Digest = digest[:]
	}
	return &pb.Guard{Guard: &pb.Guard_Key{Key: guard}}
}

// origin is what attempts are counted by: the host, or of IPv6 the /64 network, of which one host has all addresses.
func origin(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return network.String()
}

// throttled counts an attempt from address, and tells whether it is one too many.
func (r *Registry) throttled(address string, now time.Time) bool {
	from := origin(address)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.attempts) > 10_000 { // somebody who comes from many addresses must not fill the memory
		clear(r.attempts)
	}
	recent := slices.DeleteFunc(r.attempts[from], func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if len(recent) >= attemptsPerMinute {
		r.attempts[from] = recent
		return true
	}
	r.attempts[from] = append(recent, now)
	return false
}

// forgive takes an attempt that succeeded off the count: it was no guess.
func (r *Registry) forgive(address string) {
	from := origin(address)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.attempts[from]); n > 0 {
		r.attempts[from] = r.attempts[from][:n-1]
	}
}
