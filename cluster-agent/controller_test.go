package clusteragent

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// controller is a small working global plane of one replica, without raft: it registers, takes reports by diff and
// feeds the other clusters' objects.
type controller struct {
	pb.UnimplementedAgentServiceServer
	t       *testing.T
	ca      *trusttest.CA
	address string
	ttl     time.Duration
	also    []string // addresses that nobody listens at, told before its own
	store   mesh.Store
	server  *grpc.Server

	mu         sync.Mutex
	cluster    *mesh.Cluster
	secret     string // of the one token; "" once used
	generation uint64
	rotations  int
	epoch      uint64
	updates    []*pb.Update
	loads      []*pb.LoadReport
	refuse     map[string]string // key -> reason
	members    []string          // told in Welcome
}

func newController(t *testing.T, cluster *mesh.Cluster, others ...mesh.Object) *controller {
	c := &controller{t: t, ca: trusttest.NewCA("plane.test"), ttl: time.Hour, cluster: cluster, secret: jointoken.NewSecret(), refuse: map[string]string{}}
	c.store.Update(mesh.Delta{Upserts: append([]mesh.Object{cluster}, others...)})
	c.store.MarkReady()
	c.start()
	t.Cleanup(c.stop)
	return c
}

// start listens; again at the same address after a stop.
func (c *controller) start() {
	address := c.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	var listener net.Listener
	for range 100 {
		var err error
		if listener, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.address = listener.Addr().String()
	material := c.ca.SVID("/controller/one", time.Hour)
	material.Certificate.Certificate = append(material.Certificate.Certificate, c.ca.Root().Raw)
	config := trust.OptionalClientConfig(trust.FixedSource(material), trust.AuthorizeAny)
	c.server = grpc.NewServer(append(ads.ServerOptions(), grpc.Creds(credentials.NewTLS(config)))...)
	pb.RegisterAgentServiceServer(c.server, c)
	adsserver.New(adsserver.Config[*mesh.Snapshot]{State: &c.store, Authorize: func(_ context.Context, peer adsserver.Peer, _ *corev3.Node) (xds.Catalog[*mesh.Snapshot], error) {
		return everything{}, nil
	}}).Register(c.server)
	go c.server.Serve(listener)
}

func (c *controller) stop() { c.server.Stop() }

func (c *controller) token() string {
	sum := sha256.Sum256(c.ca.Root().Raw)
	return jointoken.Token{
		Secret: c.secret, Cluster: string(c.cluster.ID), TrustDomain: c.cluster.TrustDomain.Name(), Plane: c.ca.TrustDomain.Name(),
		Controllers: append(slices.Clone(c.also), c.address), RootSHA256: hex.EncodeToString(sum[:]), ExpiresUnix: time.Now().Add(time.Minute).Unix(),
	}.Text()
}

func (c *controller) issue(csr []byte) (*pb.Credential, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	leaf := c.ca.Sign(request.PublicKey, func(l *x509.Certificate) {
		id := spiffeid.RequireFromSegments(c.ca.TrustDomain, "agent", string(c.cluster.ID))
		l.URIs, l.NotBefore, l.NotAfter = []*url.URL{id.URL()}, time.Now(), time.Now().Add(c.ttl)
		l.Subject.SerialNumber = string(rune('0' + c.generation))
	})
	return &pb.Credential{
		Certificates: [][]byte{leaf.Raw}, Bundle: c.ca.JWKS(1), TrustDomain: c.ca.TrustDomain.Name(), Controllers: append(slices.Clone(c.also), c.address),
	}, nil
}

func (c *controller) Register(_ context.Context, r *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.GetTokenSecret() != c.secret {
		return nil, status.Error(codes.PermissionDenied, "join token was used already")
	}
	c.secret = ""
	credential, err := c.issue(r.GetCsr())
	return &pb.RegisterResponse{Credential: credential, Cluster: meshpb.EncodeCluster(c.cluster)}, err
}

func (c *controller) Rotate(_ context.Context, r *pb.RotateRequest) (*pb.RotateResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rotations++
	credential, err := c.issue(r.GetCsr())
	return &pb.RotateResponse{Credential: credential}, err
}

func (c *controller) Report(stream pb.AgentService_ReportServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Welcome{Welcome: c.welcome()}}); err != nil {
		return err
	}
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if load := request.GetLoad(); load != nil {
			if err := c.load(stream, load); err != nil {
				return err
			}
			continue
		}
		if err := stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: c.take(request.GetUpdate())}}); err != nil {
			return err
		}
	}
}

// load tells the members again, as they may have changed.
func (c *controller) load(stream pb.AgentService_ReportServer, load *pb.LoadReport) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loads = append(c.loads, load)
	return stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Welcome{Welcome: &pb.Welcome{Controllers: c.members}}})
}

func (c *controller) owner() own.Owner {
	return own.Owner{Cluster: c.cluster.ID, Domain: c.cluster.TrustDomain}
}

func (c *controller) welcome() *pb.Welcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	have := map[string][]byte{}
	snapshot, _ := c.store.Latest()
	for key, object := range snapshot.All() {
		if digest := meshpb.Digest(object); c.owner().Owns(key) {
			have[string(key)] = digest[:]
		}
	}
	return &pb.Welcome{Controllers: c.members, Epoch: c.epoch, Have: have, Cluster: meshpb.EncodeCluster(c.cluster)}
}

func (c *controller) take(u *pb.Update) *pb.Ack {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.updates = append(c.updates, u)
	ack := &pb.Ack{Sequence: u.GetSequence(), Index: uint64(len(c.updates))}
	var d mesh.Delta
	for _, wire := range u.GetUpserts() {
		object, err := meshpb.Decode(wire)
		if err != nil {
			c.t.Errorf("agent reported what does not decode: %v", err)
			continue
		}
		if reason := c.refuse[string(object.Key())]; reason != "" {
			ack.Rejections = append(ack.Rejections, &pb.Rejection{Key: string(object.Key()), Reason: reason})
			continue
		}
		d.Upserts = append(d.Upserts, object)
	}
	for _, key := range u.GetDeletes() {
		d.Deletes = append(d.Deletes, mesh.Key(key))
	}
	c.store.Update(d)
	return ack
}

// has waits until the plane's object at key satisfies want; nil: is gone.
func (c *controller) has(key mesh.Key, want func(mesh.Object) bool) {
	c.t.Helper()
	eventually(c.t, "controller: "+string(key), func() bool {
		object, ok := snapshotOf(&c.store).Get(key)
		if want == nil {
			return !ok
		}
		return ok && want(object)
	})
}

func (c *controller) reported() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.updates)
}

// eventually polls: what is waited for crosses processes' worth of sockets.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// everything feeds every object of the store but reports' own: what a careless, or hostile, controller would.
type everything struct{}

func (everything) Get(s *mesh.Snapshot, t xds.Type, name string) (xds.Resource, bool) {
	object, ok := s.Get(mesh.Key(name))
	if !ok || t != xds.MeshObject || strings.Contains(name, "/east") && object.Key().Kind() != mesh.KindCluster && !strings.Contains(name, "forged") {
		return xds.Resource{}, false
	}
	return xds.NewRawResource(t, name, meshpb.Marshal(object)), true
}

func (e everything) Names(s *mesh.Snapshot, t xds.Type) iter.Seq[string] {
	return func(yield func(string) bool) {
		for key := range s.All() {
			if _, ok := e.Get(s, t, string(key)); ok && !yield(string(key)) {
				return
			}
		}
	}
}

func (everything) Changed(old, now *mesh.Snapshot) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		for key := range mesh.Diff(old, now) {
			if !yield(xds.MeshObject, string(key)) {
				return
			}
		}
	}
}
