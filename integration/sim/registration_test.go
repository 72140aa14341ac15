package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/internal/jointoken"
	"github.com/periplus-mesh/periplus/trust"
)

// T5: a join token that many have is good for one.
func TestT5JoinTokenReplay(t *testing.T) {
	const thieves = 20
	play(t, step{"many register with one token at once", func(w *world) {
		c := w.newCluster("north", "eu", "north", "10.4.0.0/16")
		c.register()
		w.network.SetDelay(20 * time.Millisecond) // so that all are under way before the first is through
		var mu sync.Mutex
		var errs []error
		var agents []*process
		for i := range thieves {
			config := c.config()
			host := fmt.Sprintf("thief-%d", i)
			config.DataDir, config.Metrics, config.Store = filepath.Join(w.dir, host), prometheus.NewRegistry(), nil
			config.Listener = w.listen(host + agentPort)
			agents = append(agents, w.run(host, func(ctx context.Context, p *process) error {
				config.Dial = p.dial
				if err := clusteragent.Run(ctx, config); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
				return nil
			}))
		}
		time.Sleep(20 * time.Second)
		mu.Lock()
		if len(errs) != thieves-1 {
			w.errorf("%d of %d were refused", len(errs), thieves)
		}
		for _, err := range errs {
			if !strings.Contains(err.Error(), "was used") {
				w.errorf("refused for another reason: %v", err)
			}
		}
		mu.Unlock()
		for _, p := range agents {
			p.stop()
		}
		w.remove("north")
		w.clusters = w.clusters[:len(w.clusters)-1]
	}})
}

// T1: an agent that lies harms nobody but itself.
func TestT1RogueAgent(t *testing.T) {
	before := map[*client]string{}
	play(t,
		step{"a rogue cluster reports what is not its own", func(w *world) {
			for _, k := range w.clients {
				before[k] = texts(k.catalog())
			}
			c := w.newCluster("rogue", "eu", "rogue", "10.9.0.0/16")
			c.register()
			ack := w.forge(c)
			if len(ack.GetRejections()) != 5 {
				w.errorf("%d of 5 forged objects were rejected: %v", len(ack.GetRejections()), ack.GetRejections())
			}
			w.clusters = w.clusters[:len(w.clusters)-1]
		}},
		wait(5*time.Second),
		step{"others are unaffected", func(w *world) {
			everyClient(w, "kept", func(k *client) error {
				if now := texts(k.catalog()); now != before[k] {
					return fmt.Errorf("%s had %s, has %s", k.name, before[k], now)
				}
				return nil
			})
		}},
		step{"writes go on", changes(2 * time.Second)},
	)
}

// forge registers as c's agent by hand, and reports five forged objects.
func (w *world) forge(c *cluster) *pb.Ack {
	token, err := jointoken.Parse(c.token)
	w.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	w.must(err)
	m := &trust.Material{Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{domain(): w.issuer.Roots()}, Certificate: &tls.Certificate{}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn := w.connect(m)
	response, err := pb.NewAgentServiceClient(conn).Register(ctx, &pb.RegisterRequest{TokenSecret: token.Secret, Cluster: token.Cluster, TrustDomain: token.TrustDomain, Csr: csr})
	conn.Close()
	w.must(err)
	m.Certificate = &tls.Certificate{Certificate: response.GetCredential().GetCertificates(), PrivateKey: key}
	conn = w.connect(m)
	defer conn.Close()
	stream, err := pb.NewAgentServiceClient(conn).Report(ctx)
	w.must(err)
	w.must(stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: &pb.Hello{Instance: "rogue"}}}))
	welcome, err := stream.Recv()
	w.must(err)
	update := &pb.Update{Epoch: welcome.GetWelcome().GetEpoch(), Sequence: 1, Upserts: forged(), Deletes: []string{"service/shop/catalog/west", "endpoints/shop/catalog/west/catalog-1"}}
	w.must(stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Update{Update: update}}))
	ack, err := stream.Recv()
	w.must(err)
	return ack.GetAck()
}

// forged are endpoints in another cluster's name, with another cluster's address, and with another's identity.
func forged() (out []*pb.Object) {
	for _, f := range []struct{ cluster, address, network, identity string }{
		{"west", "10.9.0.1", "rogue", "spiffe://rogue.mesh/ns/shop/sa/catalog"},
		{"rogue", "10.1.0.1", "flat", "spiffe://rogue.mesh/ns/shop/sa/catalog"},
		{"rogue", "10.9.0.1", "rogue", "spiffe://west.mesh/ns/shop/sa/catalog"},
	} {
		out = append(out, &pb.Object{Kind: &pb.Object_EndpointSlice{EndpointSlice: &pb.EndpointSlice{
			Service: &pb.ServiceName{Namespace: "shop", Name: "catalog"}, Cluster: f.cluster, Slice: "evil" + f.address, Endpoints: []*pb.Endpoint{{
				Name: "evil", Address: f.address, Ports: map[string]uint32{"http": 1}, Network: f.network, Identity: f.identity, Weight: 1,
				Health: pb.Health_HEALTH_HEALTHY, Locality: &pb.Locality{Region: "eu", Zone: "a"},
			}},
		}}})
	}
	return out
}

func (w *world) connect(m *trust.Material) *grpc.ClientConn {
	dial := w.network.From("rogue")
	config := trust.ClientConfig(trust.FixedSource(m), trust.AuthorizeAny)
	conn, err := grpc.NewClient("passthrough:///c1"+meshPort, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address) }))
	w.must(err)
	return conn
}

// A cluster comes and goes, twice, while the endpoints of the others change.
func TestRegistrationAndRemovalUnderChurn(t *testing.T) {
	play(t, step{"a cluster comes and goes", func(w *world) {
		var churn sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		changing := w.cluster("east").endpoints[1]
		churn.Go(func() {
			for ctx.Err() == nil {
				changing.change(nil)
				time.Sleep(70 * time.Millisecond)
			}
		})
		for range 2 {
			c := w.newCluster("north", "eu", "flat", "10.4.0.0/16")
			c.populate()
			k := w.clients[len(w.clients)-1]
			for _, k := range w.clients {
				w.until(k.name+" knows the new cluster", 30*time.Second, func() error { return has(1, "north")(k) })
			}
			w.remove("north")
			k.leave()
			for _, k := range w.clients {
				w.until(k.name+" forgets it", 10*time.Second, func() error {
					if has(1, "north")(k) == nil {
						return fmt.Errorf("%s", texts(k.catalog()))
					}
					return nil
				})
			}
			c.close()
			c.loseDisk()
			w.clusters = w.clusters[:len(w.clusters)-1]
			w.invariants.setRemoved("north", false)
		}
		cancel()
		churn.Wait()
	}})
}
