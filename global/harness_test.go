package global

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/api/periplus/v1/periplusv1connect"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

const plane = "periplus.global"

// controllers are replicas of one control plane, on loopback.
type controllers struct {
	t       testing.TB
	dir     string
	configs map[string]Config
	stops   map[string]func() error
}

func start(t testing.TB, ids ...string) *controllers {
	t.Helper()
	c := &controllers{t: t, dir: t.TempDir(), configs: make(map[string]Config), stops: make(map[string]func() error)}
	if err := pki.Init(filepath.Join(c.dir, "pki"), plane, ids, []string{"ada"}); err != nil {
		t.Fatal(err)
	}
	var peers []Peer
	for _, id := range ids {
		config := c.listen(id)
		c.configs[id] = config
		peers = append(peers, Peer{id, config.RaftAdvertise, config.MeshAdvertise})
	}
	for _, id := range ids {
		config := c.configs[id]
		config.Peers, config.Bootstrap = peers, true
		c.run(id, config)
	}
	t.Cleanup(func() {
		for id := range c.stops {
			c.stop(id)
		}
	})
	for _, id := range ids {
		c.waitReady(id)
	}
	return c
}

func (c *controllers) listen(id string) Config {
	config := Config{ID: id, DataDir: filepath.Join(c.dir, id), Log: logger(), Metrics: prometheus.NewRegistry()}
	for _, to := range []*net.Listener{&config.MeshListener, &config.RaftListener, &config.AdminListener, &config.DashboardListener} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		*to = listener
	}
	config.MeshAdvertise, config.RaftAdvertise = config.MeshListener.Addr().String(), config.RaftListener.Addr().String()
	return config
}

func logger() *slog.Logger {
	if os.Getenv("PERIPLUS_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func (c *controllers) run(id string, config Config) {
	issuer, err := pki.Load(filepath.Join(c.dir, "pki", id))
	if err != nil {
		c.t.Fatal(err)
	}
	config.PKI = issuer
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, config) }()
	c.configs[id], c.stops[id] = config, func() error { cancel(); return <-ended }
}

func (c *controllers) stop(id string) {
	if err := c.stops[id](); err != nil {
		c.t.Errorf("replica %s: %v", id, err)
	}
	delete(c.stops, id)
}

func (c *controllers) dashboard(id, path string) string {
	return "http://" + c.configs[id].DashboardListener.Addr().String() + path
}

func (c *controllers) waitReady(id string) {
	c.t.Helper()
	eventually(c.t, "ready: "+id, func() bool {
		response, err := http.Get(c.dashboard(id, "/ready"))
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func (c *controllers) root() *x509.Certificate { return c.configs[c.any()].PKI.Roots()[0] }

func (c *controllers) any() string {
	for id := range c.configs {
		return id
	}
	return ""
}

// operator is the material of an operator's certificate.
func (c *controllers) operator(name string) trust.Source {
	base := filepath.Join(c.dir, "pki", "operators", name)
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		c.t.Fatal(err)
	}
	return c.material(&pair)
}

func (c *controllers) material(pair *tls.Certificate) trust.Source {
	domain := spiffeid.RequireTrustDomainFromString(plane)
	return watch.New(&trust.Material{Certificate: pair, Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{domain: {c.root()}}})
}

func (c *controllers) httpClient(source trust.Source) *http.Client {
	config := trust.ClientConfig(source, peer.OnlyController(spiffeid.RequireTrustDomainFromString(plane), ""))
	transport := &http.Transport{TLSClientConfig: config}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (c *controllers) admin(id string) (periplusv1connect.ClusterServiceClient, periplusv1connect.MeshServiceClient) {
	client, base := c.httpClient(c.operator("ada")), "https://"+c.configs[id].AdminListener.Addr().String()
	return periplusv1connect.NewClusterServiceClient(client, base), periplusv1connect.NewMeshServiceClient(client, base)
}

func cluster(name, region, cidr string) *pb.Cluster {
	return &pb.Cluster{
		Id: name, Region: region, TrustDomain: name + ".mesh", Namespaces: []string{"shop"},
		Networks: []*pb.Network{{Name: name + "-net", Cidrs: []string{netip.MustParsePrefix(cidr).String()}}},
	}
}

// register makes a token at one replica.
func (c *controllers) register(at string, spec *pb.Cluster) jointoken.Token {
	c.t.Helper()
	clusters, _ := c.admin(at)
	response, err := clusters.RegisterCluster(c.t.(*testing.T).Context(), connect.NewRequest(&pb.RegisterClusterRequest{Cluster: spec}))
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := jointoken.Parse(response.Msg.GetToken())
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// anonymous dials a replica as a new agent does: knowing nothing but the root's hash.
func (c *controllers) anonymous(at string, token jointoken.Token) pb.AgentServiceClient {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		root, err := token.Root(s.PeerCertificates)
		if err != nil {
			return err
		}
		domain := spiffeid.RequireTrustDomainFromString(token.Plane)
		m := trust.Material{Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{domain: {root}}}
		_, err = m.Verify(s.PeerCertificates)
		return err
	}}
	return pb.NewAgentServiceClient(c.dial(at, config))
}

func (c *controllers) dial(at string, config *tls.Config) *grpc.ClientConn {
	conn, err := grpc.NewClient(c.configs[at].MeshAdvertise, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

func request(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

func asRequest(token jointoken.Token, csr []byte) *pb.RegisterRequest {
	return &pb.RegisterRequest{TokenSecret: token.Secret, Cluster: token.Cluster, TrustDomain: token.TrustDomain, Csr: csr}
}

// credential is an agent's.
func (c *controllers) credential(key *ecdsa.PrivateKey, from *pb.Credential) trust.Source {
	leaf, err := x509.ParseCertificate(from.GetCertificates()[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return c.material(&tls.Certificate{Certificate: from.GetCertificates(), PrivateKey: key, Leaf: leaf})
}

// join registers a cluster's agent and returns its credential.
func (c *controllers) join(at string, spec *pb.Cluster) trust.Source {
	c.t.Helper()
	token := c.register(at, spec)
	key, csr := request(c.t)
	response, err := c.anonymous(at, token).Register(context.Background(), asRequest(token, csr))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.credential(key, response.GetCredential())
}

func (c *controllers) agent(at string, source trust.Source) *grpc.ClientConn {
	return c.dial(at, trust.ClientConfig(source, peer.OnlyController(spiffeid.RequireTrustDomainFromString(plane), "")))
}
