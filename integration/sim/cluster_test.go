package sim

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/internal/announce"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/spire"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

const services = `apiVersion: periplus.io/v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  exported: true
  ports:
  - {name: http, port: 80, protocol: http}
`

// cluster is a cluster with its agent, its trust domain and its endpoints.
type cluster struct {
	w                           *world
	name, region, network, cidr string
	ca                          *trusttest.CA
	identity                    trust.Source // the agent's, towards its own proxies
	token                       string
	dir                         string // the agent's data folder
	generation                  int    // of dir
	store                       *mesh.Store
	metrics                     *prometheus.Registry
	process                     *process // the agent; nil: down
	endpoints                   []*endpoint
	addresses                   byte
}

func (w *world) newCluster(name, region, network, cidr string) *cluster {
	c := &cluster{w: w, name: name, region: region, network: network, cidr: cidr, ca: trusttest.NewCA(name + ".mesh")}
	c.identity = c.ca.Source("/periplus/agent", 20*time.Hour)
	c.dir = filepath.Join(w.dir, "agent-"+name)
	w.must(os.MkdirAll(c.dir, 0o700))
	w.must(os.WriteFile(c.services(), []byte(services), 0o600))
	w.clusters = append(w.clusters, c)
	return c
}

func (c *cluster) id() mesh.ClusterID { return mesh.ClusterID(c.name) }
func (c *cluster) host() string       { return "agent-" + c.name }
func (c *cluster) services() string   { return filepath.Join(c.w.dir, c.name+".yaml") }
func (c *cluster) up() bool           { return c.process != nil }

// register registers the cluster, for the first time or again, and keeps the join token.
func (c *cluster) register() {
	c.w.must(c.w.ask(func(ctx context.Context, api admin) error {
		response, err := api.clusters.RegisterCluster(ctx, connect.NewRequest(&pb.RegisterClusterRequest{Cluster: &pb.Cluster{
			Id: c.name, Region: c.region, TrustDomain: c.name + ".mesh", Namespaces: []string{"shop"},
			Networks: []*pb.Network{{Name: c.network, Cidrs: []string{c.cidr}}},
		}}))
		if err == nil {
			c.token = response.Msg.GetToken()
		}
		return err
	}))
}

// config is the agent's.
func (c *cluster) config() clusteragent.Config {
	return clusteragent.Config{
		DataDir: c.dir, JoinToken: c.token, Source: c.identity, Server: spireServer{c},
		ServicesFile: c.services(), Store: c.store, Log: logger(c.host()), Metrics: c.metrics,
	}
}

func (c *cluster) start() {
	c.store, c.metrics = new(mesh.Store), prometheus.NewRegistry()
	config := c.config()
	config.Listener = c.w.listen(c.host() + agentPort)
	c.process = c.w.run(c.host(), func(ctx context.Context, p *process) error {
		config.Dial = p.dial
		return clusteragent.Run(ctx, config)
	})
}

// stop is an orderly restart's first half.
func (c *cluster) stop() {
	c.process.stop()
	c.process = nil
}

// behind is how much older an agent's disk may be than what it reported.
const behind = 1500 * time.Millisecond

// kill ends the agent; the next one finds the disk as it was at that moment. It waits until the disk is up to date:
// an agent that crashes before has forgotten what it reported last, and tells the older state as if it were new,
// until the endpoints have announced themselves again.
func (c *cluster) kill() {
	time.Sleep(behind)
	c.generation++
	next := filepath.Join(c.w.dir, fmt.Sprintf("agent-%s-%d", c.name, c.generation))
	c.w.must(copyFolder(c.dir, next))
	c.dir = next
	c.process.kill()
	c.process = nil
}

// loseState removes everything from the agent's disk but its credential.
func (c *cluster) loseState() {
	for _, name := range []string{"state.1", "state.2", "feed", "federation.json"} {
		c.w.must(os.RemoveAll(filepath.Join(c.dir, name)))
	}
}

// loseDisk makes the next agent begin from nothing.
func (c *cluster) loseDisk() {
	c.w.must(os.RemoveAll(c.dir))
	c.w.must(os.MkdirAll(c.dir, 0o700))
}

// copyFolder copies files as a crash leaves them: one that vanishes meanwhile was being replaced.
func copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		target := filepath.Join(to, path[len(from):])
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}

func (c *cluster) close() {
	for _, e := range c.endpoints {
		if e.up() {
			e.crash()
		}
	}
	if c.up() {
		c.stop()
	}
}

// count is a counter of the present agent process.
func (c *cluster) count(name string) (sum float64) {
	families, err := c.metrics.Gather()
	c.w.must(err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// spireServer stands in for the cluster's SPIRE server: it has a bundle to publish, and takes what it is given.
type spireServer struct{ c *cluster }

func (s spireServer) OwnBundle(context.Context) (*trust.Bundle, error) {
	return trust.NewBundle(s.c.ca.TrustDomain, 1, s.c.ca.Roots(), nil), nil
}

func (s spireServer) Reconcile(context.Context, spire.Desired) (spire.Status, error) {
	return spire.Status{}, nil
}

// material is an identity of the cluster that can verify the controllers, too.
func (c *cluster) material(path string) trust.Source {
	m := c.ca.SVID(path, 20*time.Hour)
	m.Bundles[domain()] = c.w.issuer.Roots()
	return trust.FixedSource(m)
}

func (c *cluster) authorizeAgent() trust.Authorizer {
	return trust.AuthorizeOneOf(mesh.AgentIdentity(c.ca.TrustDomain))
}

// endpoint is a workload or gateway that announces itself. The port it announces is its version: it only rises.
type endpoint struct {
	c        *cluster
	path     string // of its SPIFFE ID
	request  *pb.AnnounceRequest
	announce watch.Value[*pb.AnnounceRequest]
	process  *process // nil: down
}

func (e *endpoint) up() bool { return e.process != nil }

// address is the next free one of the cluster.
func (c *cluster) address() string {
	c.addresses++
	base := netip.MustParsePrefix(c.cidr).Addr().As4()
	base[3] = c.addresses
	return netip.AddrFrom4(base).String()
}

func (c *cluster) endpoint(name string) *endpoint {
	return c.announce("/ns/shop/sa/catalog", &pb.AnnounceRequest{
		Name: name, Address: c.address(), Health: pb.Health_HEALTH_HEALTHY, Locality: &pb.Locality{Region: c.region, Zone: "a"},
		Services: []*pb.AnnouncedService{{Name: "catalog", Ports: []*pb.AnnouncedPort{{Name: "http", Port: 80, Protocol: "http", EndpointPort: 1000}}}},
	})
}

func (c *cluster) gateway(name string) *endpoint {
	return c.announce("/periplus/gateway", &pb.AnnounceRequest{
		Name: name, Address: c.address(), Health: pb.Health_HEALTH_HEALTHY, Locality: &pb.Locality{Region: c.region, Zone: "a"},
		Gateway: &pb.AnnouncedGateway{Port: 15443},
	})
}

func (c *cluster) announce(path string, request *pb.AnnounceRequest) *endpoint {
	e := &endpoint{c: c, path: path, request: request}
	c.endpoints = append(c.endpoints, e)
	e.start()
	return e
}

func (e *endpoint) start() {
	e.change(func(r *pb.AnnounceRequest) { r.Health = pb.Health_HEALTH_HEALTHY })
	source := e.c.material(e.path)
	e.process = e.c.w.run(e.c.name+"-"+e.request.GetName(), func(ctx context.Context, p *process) error {
		return announce.Run(ctx, announce.Config{
			Target: announce.Target{Address: e.c.host() + agentPort, Authorize: e.c.authorizeAgent()}, Source: source,
			Announcement: &e.announce, Dial: p.dial, Log: logger(p.host),
		})
	})
}

// change announces something else, one version up.
func (e *endpoint) change(edit func(*pb.AnnounceRequest)) {
	next := proto.Clone(e.request).(*pb.AnnounceRequest)
	for _, s := range next.Services {
		s.Ports[0].EndpointPort++
	}
	if edit != nil {
		edit(next)
	}
	e.request = next
	e.announce.Set(proto.Clone(next).(*pb.AnnounceRequest))
}

func (e *endpoint) crash() {
	e.process.kill()
	e.process = nil
}

// drain says goodbye and goes.
func (e *endpoint) drain() {
	e.change(func(r *pb.AnnounceRequest) { r.Health = pb.Health_HEALTH_DRAINING })
	time.Sleep(time.Second)
	e.process.stop()
	e.process = nil
}
