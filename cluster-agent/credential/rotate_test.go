package credential

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// plane is a controller whose clock differs from the agent's by ahead.
type plane struct {
	pb.UnimplementedAgentServiceServer
	ca         *trusttest.CA
	ahead      time.Duration
	registered atomic.Bool
	rotations  int
	enough     func() // called at the twentieth
}

// issue makes a credential as controllers do: for an hour, and ten minutes back.
func (p *plane) issue(csr []byte) *pb.Credential {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		panic(err)
	}
	now := time.Now().Add(p.ahead)
	leaf := p.ca.Sign(request.PublicKey, func(c *x509.Certificate) {
		c.URIs = []*url.URL{spiffeid.RequireFromSegments(p.ca.TrustDomain, "agent", "east").URL()}
		c.NotBefore, c.NotAfter, c.Subject.SerialNumber = now.Add(-10*time.Minute), now.Add(time.Hour), "1"
	})
	return &pb.Credential{Certificates: [][]byte{leaf.Raw}, Bundle: p.ca.JWKS(1), TrustDomain: "plane.test", Controllers: []string{"d:1", "c:1"}}
}

func (p *plane) Rotate(_ context.Context, q *pb.RotateRequest) (*pb.RotateResponse, error) {
	if p.rotations++; p.rotations == 20 {
		p.enough()
	}
	return &pb.RotateResponse{Credential: p.issue(q.GetCsr())}, nil
}

// Register takes the token once, and long to answer.
func (p *plane) Register(_ context.Context, q *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	if p.registered.Swap(true) {
		return nil, status.Error(codes.PermissionDenied, "join token was used")
	}
	time.Sleep(10 * time.Second)
	cluster, err := meshpb.Unmarshal(eastObject())
	if err != nil {
		return nil, err
	}
	return &pb.RegisterResponse{Credential: p.issue(q.GetCsr()), Cluster: meshpb.EncodeCluster(cluster.(*mesh.Cluster))}, nil
}

func eastObject() []byte {
	return meshpb.Marshal(&mesh.Cluster{
		ID: "east", Region: "eu", TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), State: mesh.ClusterActive,
		Networks: []mesh.NetworkRange{{Name: "n1"}}, CredentialGeneration: 1,
	})
}

// agent has a credential of p's that it obtained now, in folder dir.
func (p *plane) agent(t *testing.T, dir string, network *memnet.Network) *Credential {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := certificateRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	issued := p.issue(csr)
	issued.Controllers = []string{"c:1", "d:1"}
	i, err := receive(issued, key, eastObject(), "hash")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{DataDir: dir, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Dial: network.From("agent")}
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	return newCredential(c, i, true)
}

func (p *plane) serve(t *testing.T, network *memnet.Network) (stop func()) {
	listener, err := network.Listen("c:1")
	if err != nil {
		t.Fatal(err)
	}
	material := p.ca.SVID("/controller/one", 24*time.Hour)
	material.Certificate.Certificate = append(material.Certificate.Certificate, p.ca.Root().Raw)
	config := trust.OptionalClientConfig(trust.FixedSource(material), trust.AuthorizeAny)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	pb.RegisterAgentServiceServer(server, p)
	go server.Serve(listener)
	return server.Stop
}

// F27: whichever clock is wrong, a credential is replaced a few times in its hour: not at once again and again because
// it looks old, nor too late because it looks young.
func TestF27RotationUnderClockSkew(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"same": 0, "agent ahead": -45 * time.Minute, "agent behind": 9 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				network, p := new(memnet.Network), &plane{ca: trusttest.NewCA("plane.test"), ahead: ahead, enough: cancel}
				defer p.serve(t, network)()
				c := p.agent(t, dir, network)
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx) }()
				time.Sleep(50 * time.Minute)
				cancel()
				if err := <-done; err != nil || p.rotations < 1 || p.rotations > 9 {
					t.Errorf("%d rotations in 50 minutes, %v", p.rotations, err)
				}
				if got := c.Controllers(); !slices.Equal(got, []string{"c:1", "d:1"}) {
					t.Errorf("controllers are %q: the order changed by whom was asked", got)
				}
			})
		})
	}
}

// A registration that waits for an election is waited for: the token is used by then, and would be refused.
func TestSlowRegistrationIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network, p := new(memnet.Network), &plane{ca: trusttest.NewCA("plane.test")}
		defer p.serve(t, network)()
		sum := sha256.Sum256(p.ca.Root().Raw)
		token := jointoken.Token{
			Secret: jointoken.NewSecret(), Cluster: "east", TrustDomain: "east.test", Plane: "plane.test", Controllers: []string{"c:1"},
			RootSHA256: hex.EncodeToString(sum[:]), ExpiresUnix: time.Now().Add(time.Minute).Unix(),
		}
		c, err := Obtain(t.Context(), Config{
			DataDir: dir, Token: token.Text(), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Dial: network.From("agent"),
		})
		if err != nil || !c.Fresh() {
			t.Fatal(err)
		}
	})
}

func TestUntilDue(t *testing.T) {
	p := &plane{ca: trusttest.NewCA("plane.test")}
	c := p.agent(t, t.TempDir(), new(memnet.Network))
	now := time.Now()
	spread := 70 * time.Minute / 40
	for name, row := range map[string]struct {
		obtained time.Time
		at       time.Time
		want     time.Duration // give or take spread
	}{
		"issued now":                    {now, now, 25 * time.Minute},
		"half of it":                    {now, now.Add(10 * time.Minute), 15 * time.Minute},
		"the clock went forth":          {now.Add(20 * time.Minute), now.Add(20 * time.Minute), 7 * time.Minute},
		"long after":                    {now, now.Add(time.Hour), -35 * time.Minute},
		"from disk":                     {time.Time{}, now, 25 * time.Minute},
		"from disk, old":                {time.Time{}, now.Add(50 * time.Minute), -25 * time.Minute},
		"the clock went back by 1 hour": {now.Add(-time.Hour), now, -25 * time.Minute},
	} {
		c.obtained = row.obtained
		if got, _ := c.untilDue(row.at); got < row.want-spread-time.Second || got > row.want+spread+time.Second {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

// A disk that takes nothing does not end a credential that the controllers renew.
func TestUnsavedIsInForceAndSavedLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		network, p := new(memnet.Network), &plane{ca: trusttest.NewCA("plane.test"), enough: cancel}
		defer p.serve(t, network)()
		c := p.agent(t, dir, network)
		before, _ := c.Get()
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(35 * time.Minute)
		if now, _ := c.Get(); now == before || p.rotations != 1 {
			t.Errorf("%d rotations, in force is the old one: %v", p.rotations, now == before)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		now, _ := c.Get()
		if have, err := load(dir); err != nil || have == nil || !have.material.Certificate.Leaf.Equal(now.Certificate.Leaf) {
			t.Errorf("on disk: %v, %v", have, err)
		}
		cancel()
		<-done
	})
}
