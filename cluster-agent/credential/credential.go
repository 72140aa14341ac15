package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

// Config of a credential.
type Config struct {
	// DataDir is the folder of the file; it exists.
	DataDir string
	// Token is the text of a join token; "" is enough once the folder has a credential.
	Token string
	// Version of the agent, for people.
	Version string
	// Dial connects to a controller; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// CallTimeout bounds the connection to one controller, and each call but the registration; 0: 5 s.
	CallTimeout time.Duration
	Log         *slog.Logger
	Metrics     prometheus.Registerer
}

func (c *Config) validate() error {
	if c.DataDir == "" || c.Log == nil || c.Metrics == nil {
		return errors.New("credential: data folder, log and metrics are needed")
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = 5 * time.Second
	}
	return nil
}

// Credential is the agent's identity towards the controllers; a trust.Source. Safe for concurrent use.
type Credential struct {
	config   Config
	metrics  *metrics
	material watch.Value[*trust.Material]
	cluster  watch.Value[*mesh.Cluster]
	members  watch.Value[[]string]
	plane    spiffeid.TrustDomain
	fresh    bool

	mu       sync.Mutex // orders the writers of what follows
	current  *identity
	obtained time.Time     // when this process was issued current, by the monotonic clock; zero: it is from disk
	spread   time.Duration // by which its rotation is moved, so that agents that were started together spread
	unsaved  bool          // current is not on disk
}

// Obtain returns the folder's credential or registers with the token, retrying until ctx ends while no controller
// can be reached. A token that the controllers refuse is an error that says why, unless the folder's credential
// is good.
func Obtain(ctx context.Context, c Config) (*Credential, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	have, err := load(c.DataDir)
	if err != nil && c.Token == "" {
		return nil, fmt.Errorf("%w: start with a new join token", err)
	}
	if err != nil {
		c.Log.Error("the credential in the data folder is unusable: the join token is", "err", err)
	}
	if c.Token == "" {
		return fromDisk(c, have)
	}
	token, err := jointoken.Parse(c.Token)
	if err != nil {
		return nil, err
	}
	return choose(ctx, c, have, token)
}

// choose prefers a token that is new to the folder: the operator gave it for a reason. But an old credential that
// is good outlives a token that is not.
func choose(ctx context.Context, c Config, have *identity, token jointoken.Token) (*Credential, error) {
	if have != nil && string(have.cluster.ID) != token.Cluster {
		return nil, fmt.Errorf("credential: folder %s belongs to cluster %q, the join token is for %q: use another folder", c.DataDir, have.cluster.ID, token.Cluster)
	}
	good := have != nil && time.Now().Before(have.material.Certificate.Leaf.NotAfter)
	if good && have.stored.TokenHash == jointoken.Hash(token.Secret) {
		return newCredential(c, have, false), nil
	}
	if good {
		short, cancel := context.WithTimeout(ctx, c.CallTimeout)
		defer cancel()
		ctx = short
	}
	i, err := register(ctx, c, token)
	if err == nil {
		c.Log.Info("registered", "cluster", token.Cluster, "trust_domain", token.TrustDomain, "peer", token.Plane)
		return newCredential(c, i, true), nil
	}
	if good {
		c.Log.Warn("the join token was not accepted; the credential in the data folder is used", "cluster", token.Cluster, "err", err)
		return newCredential(c, have, false), nil
	}
	return nil, err
}

func fromDisk(c Config, have *identity) (*Credential, error) {
	if have == nil {
		return nil, fmt.Errorf("credential: folder %s has none: start with a join token (periplus cluster register NAME prints one)", c.DataDir)
	}
	if end := have.material.Certificate.Leaf.NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("credential: expired %s ago by this machine's clock: start with a new join token (periplus cluster register %s)", time.Since(end).Round(time.Second), have.cluster.ID)
	}
	return newCredential(c, have, false), nil
}

func newCredential(c Config, i *identity, fresh bool) *Credential {
	out := &Credential{config: c, metrics: newMetrics(c.Metrics), plane: i.plane, fresh: fresh, current: i}
	out.cluster.Set(i.cluster)
	out.members.Set(i.stored.Controllers)
	out.use(i)
	if fresh {
		out.obtained = time.Now()
	}
	return out
}

// Get makes a Credential a trust.Source.
func (c *Credential) Get() (*trust.Material, <-chan struct{}) { return c.material.Get() }

// Fresh tells whether this process registered. The cluster may be older: its agent's folder was lost.
func (c *Credential) Fresh() bool { return c.fresh }

// Plane is the control plane's trust domain.
func (c *Credential) Plane() spiffeid.TrustDomain { return c.plane }

// Controllers are the addresses of all replicas as the controllers last said, the preferred first.
func (c *Credential) Controllers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.stored.Controllers
}

// WatchControllers is Controllers, and a channel that closes when they change.
func (c *Credential) WatchControllers() ([]string, <-chan struct{}) { return c.members.Get() }

// SetControllers takes what a controller says of the replicas. The order of those that are known stays, for each names
// itself first. Addresses that cannot be dialled are left out; if none is left, nothing changes.
func (c *Credential) SetControllers(said []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := merge(c.current.stored.Controllers, said)
	if len(next) == 0 || slices.Equal(next, c.current.stored.Controllers) {
		return nil
	}
	c.config.Log.Info("controllers changed", "controllers", next)
	return c.keep(func(s *stored) { s.Controllers = next })
}

func merge(have, said []string) (next []string) {
	for _, address := range have {
		if slices.Contains(said, address) {
			next = append(next, address)
		}
	}
	for _, address := range said {
		if _, _, err := net.SplitHostPort(address); err == nil && !slices.Contains(next, address) {
			next = append(next, address)
		}
	}
	return next
}

// Bundle is the control plane's bundle (JWKS).
func (c *Credential) Bundle() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.stored.Bundle
}

// Cluster is the own cluster as the controllers last said; never nil.
func (c *Credential) Cluster() *mesh.Cluster { return c.cluster.Latest() }

// WatchCluster is Cluster, and a channel that closes when the controllers say otherwise.
func (c *Credential) WatchCluster() (*mesh.Cluster, <-chan struct{}) { return c.cluster.Get() }

// Generation of the credential in force, and of the one that the controllers want at least.
func (c *Credential) Generation() (own, wanted uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.generation(), c.cluster.Latest().CredentialGeneration
}

// SetCluster takes what the controllers say of the own cluster. It refuses another cluster or trust domain: those
// are fixed by the registration.
func (c *Credential) SetCluster(cluster *mesh.Cluster) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.current.cluster
	if cluster.ID != have.ID || cluster.TrustDomain != have.TrustDomain {
		return fmt.Errorf("credential: controllers say cluster %q of %q, registered was %q of %q", cluster.ID, cluster.TrustDomain.Name(), have.ID, have.TrustDomain.Name())
	}
	if meshpb.Digest(cluster) == meshpb.Digest(have) {
		return nil
	}
	return c.keep(func(s *stored) { s.Cluster = meshpb.Marshal(cluster) })
}

// keep makes a changed credential the one in force, and writes it. What could not be written is in force all the same,
// and Run writes it later: a full disk must not let a credential end that controllers renew. The caller holds mu.
func (c *Credential) keep(change func(*stored)) error {
	s := *c.current.stored
	change(&s)
	i, err := s.understand()
	if err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	rotated := i.material.Certificate.Leaf.SerialNumber.Cmp(c.current.material.Certificate.Leaf.SerialNumber) != 0
	if meshpb.Digest(i.cluster) == meshpb.Digest(c.current.cluster) {
		i.cluster = c.current.cluster
	} else {
		c.cluster.Set(i.cluster)
	}
	c.current = i
	if !slices.Equal(i.stored.Controllers, c.members.Latest()) {
		c.members.Set(i.stored.Controllers)
	}
	if rotated {
		c.use(i)
		c.obtained = time.Now()
	}
	_ = c.save() // Run sees that it is unsaved
	return nil
}

// save writes the credential in force. The caller holds mu.
func (c *Credential) save() error {
	err := save(c.config.DataDir, c.current.stored)
	c.unsaved = err != nil
	return err
}

// use puts i's certificate in force.
func (c *Credential) use(i *identity) {
	leaf := i.material.Certificate.Leaf
	c.spread = spreadOf(leaf)
	c.material.Set(i.material)
	c.metrics.expires.Set(float64(leaf.NotAfter.Unix()))
}

// saveAgain writes what could not be written.
func (c *Credential) saveAgain() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.save()
}

// AuthorizeController accepts the replicas of the control plane's trust domain, and nobody else.
func AuthorizeController(plane spiffeid.TrustDomain) trust.Authorizer {
	return func(id spiffeid.ID) error {
		role, _, err := mesh.ParsePlaneIdentity(id)
		if err != nil || role != mesh.RoleController || id.TrustDomain() != plane {
			return fmt.Errorf("peer %q is not a controller of %q", id, plane.Name())
		}
		return nil
	}
}
