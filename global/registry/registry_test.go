package registry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// direct applies what is proposed at once, without looking at guards.
type direct struct{ store *mesh.Store }

func (d *direct) Barrier(context.Context) error { return nil }

func (d *direct) Propose(_ context.Context, c *pb.Command) (*pb.CommandResult, error) {
	result := &pb.CommandResult{}
	for _, p := range c.GetParts() {
		var delta mesh.Delta
		for _, key := range p.GetDeletes() {
			delta.Deletes = append(delta.Deletes, mesh.Key(key))
		}
		for _, o := range p.GetUpserts() {
			object, err := meshpb.Decode(o)
			if err != nil {
				return nil, err
			}
			delta.Upserts = append(delta.Upserts, object)
		}
		d.store.Update(delta)
		result.Applied = append(result.Applied, true)
	}
	return result, nil
}

func newRegistry(t *testing.T) *Registry {
	t.Helper()
	dir := t.TempDir()
	if err := pki.Init(dir, "periplus.global", []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	issuer, err := pki.Load(dir + "/a")
	if err != nil {
		t.Fatal(err)
	}
	store := new(mesh.Store)
	r, err := New(Config{
		Store: store, Proposer: &direct{store}, Issuer: issuer, Controllers: func() []string { return []string{"127.0.0.1:1"} },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func west() *mesh.Cluster {
	return &mesh.Cluster{
		ID: "west", Region: "eu-west", TrustDomain: spiffeid.RequireTrustDomainFromString("west.mesh"),
		Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
	}
}

func TestTokensExpireAndReplaceEachOther(t *testing.T) {
	r, now := newRegistry(t), time.Unix(1_000_000, 0)
	first, err := r.Issue(t.Context(), west(), time.Hour, "ada", now)
	if err != nil {
		t.Fatal(err)
	}
	if first.Expires != now.Add(MaxTokenTTL) {
		t.Errorf("it lives until %v", first.Expires)
	}
	second, err := r.Issue(t.Context(), west(), time.Minute, "ada", now)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token jointoken.Token, at time.Time) string {
		_, refused := r.find(t.Context(), &pb.RegisterRequest{TokenSecret: token.Secret, Cluster: "west", TrustDomain: "west.mesh"}, "theirs", at)
		if refused == nil {
			return ""
		}
		return refused.outcome
	}
	if got := ask(first.Token, now); got != "unknown" {
		t.Errorf("the first, which was replaced: %q", got)
	}
	if got := ask(second.Token, now.Add(time.Minute-time.Millisecond)); got != "" {
		t.Errorf("the second: %q", got)
	}
	if got := ask(second.Token, now.Add(time.Minute)); got != "expired" {
		t.Errorf("the second, too late: %q", got)
	}
	if _, refused := r.use(t.Context(), r.lookup(jointoken.Hash(second.Token.Secret)), "ours", now); refused != nil {
		t.Error(refused.text)
	}
	if got := ask(second.Token, now); got != "used" {
		t.Errorf("the second, again: %q", got)
	}
}

func TestWhatCannotChange(t *testing.T) {
	r, now := newRegistry(t), time.Unix(1_000_000, 0)
	if _, err := r.Issue(t.Context(), west(), 0, "ada", now); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		edit func(*mesh.Cluster)
		want error
	}{
		"namespaces":     {func(c *mesh.Cluster) { c.Namespaces = []string{"shop"} }, nil},
		"region":         {func(c *mesh.Cluster) { c.Region = "us-east" }, ErrConflict},
		"domain":         {func(c *mesh.Cluster) { c.TrustDomain = spiffeid.RequireTrustDomainFromString("x.mesh") }, ErrConflict},
		"another's":      {func(c *mesh.Cluster) { c.ID = "east" }, ErrConflict},
		"the plane's":    {func(c *mesh.Cluster) { c.ID, c.TrustDomain = "east", r.config.Issuer.TrustDomain() }, ErrConflict},
		"nonsense":       {func(c *mesh.Cluster) { c.ID = "A B" }, ErrInvalid},
		"without domain": {func(c *mesh.Cluster) { c.TrustDomain = spiffeid.TrustDomain{} }, ErrInvalid},
	} {
		cluster := west()
		c.edit(cluster)
		if _, err := r.Issue(t.Context(), cluster, 0, "ada", now); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAdmits(t *testing.T) {
	for _, c := range []struct {
		held       *mesh.Cluster
		generation uint64
		want       string
	}{
		{nil, 1, "not registered"}, {&mesh.Cluster{CredentialGeneration: 1}, 1, ""}, {&mesh.Cluster{CredentialGeneration: 2}, 1, ""},
		{&mesh.Cluster{CredentialGeneration: 3}, 1, "revoked"}, {&mesh.Cluster{CredentialGeneration: 1}, 2, ""},
	} {
		if err := Admits(c.held, c.generation); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, generation %d: %v", c.held, c.generation, err)
		}
	}
}

func TestThrottle(t *testing.T) {
	r, now := newRegistry(t), time.Unix(1_000_000, 0)
	for range attemptsPerMinute {
		if r.throttled("10.0.0.1:1", now) {
			t.Fatal("throttled too early")
		}
	}
	for _, address := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "[2001:db8::4]:1", "[2001:db8::5]:1"} {
		if r.throttled(address, now) {
			t.Fatal("throttled too early")
		}
	}
	if !r.throttled("[2001:db8::6]:1", now) || r.throttled("[2001:db8:0:1::1]:1", now) {
		t.Error("attempts count by network of IPv6")
	}
	if !r.throttled("10.0.0.1:2", now.Add(time.Second)) || r.throttled("10.0.0.2:1", now) || r.throttled("10.0.0.1:1", now.Add(time.Minute)) {
		t.Error("attempts count by host and for one minute")
	}
	r.forgive("10.0.0.1:1")
	if n := len(r.attempts["10.0.0.1"]); n != 0 {
		t.Errorf("%d attempts after the success", n)
	}
}

// A replica that starts knows of no cluster and no revocation.
func TestRotationWaitsForTheState(t *testing.T) {
	r := newRegistry(t)
	if _, err := r.Rotate(t.Context(), &pb.RotateRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("before: %v", err)
	}
	r.config.Store.MarkReady()
	if _, err := r.Rotate(t.Context(), &pb.RotateRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without a certificate: %v", err)
	}
}

// lagging is a replica whose store shows what was proposed, and what others proposed before, only after a barrier.
type lagging struct {
	direct
	others  []mesh.Object
	pending []*pb.Command
}

func (l *lagging) Propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	if l.pending == nil {
		l.pending = []*pb.Command{c}
		return &pb.CommandResult{Index: 1000, Applied: []bool{true}}, nil
	}
	return l.direct.Propose(ctx, c)
}

func (l *lagging) Barrier(ctx context.Context) error {
	l.store.Update(mesh.Delta{Upserts: l.others})
	for _, c := range l.pending {
		if _, err := l.direct.Propose(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Two clusters claim one trust domain at the same moment, at replicas that do not know of each other's yet.
func TestTrustDomainIsUniqueThoughTheReplicaLags(t *testing.T) {
	r := newRegistry(t)
	rival := west()
	rival.ID, rival.State, rival.CredentialGeneration = "rival", mesh.ClusterActive, 1
	r.config.Proposer = &lagging{direct: direct{r.config.Store}, others: []mesh.Object{rival}}
	if _, err := r.Issue(t.Context(), west(), 0, "ada", time.Unix(1_000_000, 0)); !errors.Is(err, ErrConflict) {
		t.Errorf("got %v", err)
	}
	snapshot, _ := r.config.Store.Latest()
	if snapshot.Cluster("west") != nil {
		t.Error("both clusters have the domain")
	}
}

// What a removed replica issued ends with the last credential that it issued as a member.
func TestCredentialsOfARemovedReplicaEnd(t *testing.T) {
	removed := time.Unix(1_000_000, 0)
	s := new(mesh.Store).Update(mesh.Delta{Upserts: []mesh.Object{&mesh.RemovedReplica{ID: "c", RemovedAtMillis: removed.UnixMilli()}}})
	for _, test := range []struct {
		replica string
		after   time.Duration
		refused bool
	}{{"c", 0, false}, {"c", pki.AgentTTL - time.Second, false}, {"c", pki.AgentTTL, true}, {"a", 24 * time.Hour, false}, {"", 24 * time.Hour, false}} {
		if err := issuerIsMember(s, test.replica, removed.Add(test.after)); (err != nil) != test.refused {
			t.Errorf("replica %q, %v after: %v", test.replica, test.after, err)
		}
	}
}
