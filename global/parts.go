package global

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/admin"
	"github.com/periplus-mesh/periplus/global/ingest"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/global/policies"
	"github.com/periplus-mesh/periplus/global/registry"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// parts are the components of one replica.
type parts struct {
	config   *Config
	store    *mesh.Store
	own      *pki.Source
	verifier *verifier
	pool     *peer.Pool
	replica  *replica.Replica
	board    *observe.Board
	sharer   *observe.Sharer
	registry *registry.Registry
	ingest   *ingest.Ingest
	gate     *peer.Gate
	ads      *adsserver.Server[*mesh.Snapshot]
	api      *admin.API
}

func build(c *Config) (*parts, error) {
	host, _, _ := net.SplitHostPort(c.MeshAdvertise) // without a host: no name in the certificate
	own, err := c.PKI.Source(host)
	if err != nil {
		return nil, err
	}
	p := &parts{config: c, store: c.Store, own: own, board: observe.NewBoard(c.ID, c.place())}
	if p.store == nil {
		p.store = new(mesh.Store)
	}
	c.Metrics.MustRegister(observe.NewCollector(p.latest, p.board))
	p.verifier = newVerifier(own, p.store, c.Log)
	p.pool = &peer.Pool{Source: own, Domain: c.PKI.TrustDomain(), Dial: c.Dial}
	if p.replica, err = c.replica(p, p.store); err != nil {
		return nil, err
	}
	p.registry, err = registry.New(registry.Config{
		Store: p.store, Proposer: p.replica, Issuer: c.PKI, Controllers: p.controllers, Log: c.Log, Metrics: c.Metrics,
	})
	if err != nil {
		return nil, err
	}
	p.ingest, err = ingest.New(ingest.Config{
		Store: p.store, Proposer: p.replica, Board: p.board, Issuer: c.PKI, Controllers: p.controllers, Log: c.Log, Metrics: c.Metrics,
	})
	if err != nil {
		return nil, err
	}
	p.sharer = &observe.Sharer{
		Board: p.board, Send: p.share, Replicas: p.members, Applied: p.replica.Applied, State: p.replica.StateSum,
		Registered: func(id mesh.ClusterID) bool { return p.latest().Cluster(id) != nil },
	}
	p.gate = &peer.Gate{Admit: p.admit}
	p.ads = adsserver.New(adsserver.Config[*mesh.Snapshot]{State: p.store, Authorize: p.authorize, Log: c.Log, Metrics: c.Metrics})
	p.api, err = admin.New(admin.Config{
		ID: c.ID, Domain: c.PKI.TrustDomain(), Store: p.store, Replicas: p.replica, Registry: p.registry, Board: p.board,
		Policies: policies.New(policies.Config{State: p.store, Proposer: p.replica, Author: author, Log: c.Log}),
		Static:   c.Dashboard, Metrics: promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{}), Log: c.Log,
	})
	return p, err
}

// place is what the other replicas tell people of this one.
func (c *Config) place() observe.Place {
	place := observe.Place{Region: c.Region}
	if c.DashboardListener != nil {
		place.Dashboard = "http://" + c.DashboardListener.Addr().String() + "/"
	}
	return place
}

func author(ctx context.Context) (string, error) {
	if id, ok := peer.Author(ctx); ok {
		return id, nil
	}
	return "", errors.New("nothing can be changed without an operator's certificate")
}

func (p *parts) latest() *mesh.Snapshot {
	snapshot, _ := p.store.Latest()
	return snapshot
}

// controllers are the mesh addresses of all replicas, this one first: the agent that asks knows that it works.
func (p *parts) controllers() []string {
	out := []string{p.config.MeshAdvertise}
	for _, m := range p.replica.Members() {
		if m.ID != p.config.ID {
			out = append(out, m.Address.Mesh)
		}
	}
	return out
}

// members are the replicas' ids. Connections to those that left are closed on the way.
func (p *parts) members() (ids []string) {
	known := make(map[string]bool)
	for _, m := range p.replica.Members() {
		ids = append(ids, m.ID)
		known[m.ID] = true
	}
	p.pool.Retain(known)
	return ids
}

// share sends observations to one replica.
func (p *parts) share(ctx context.Context, id string, o *pb.Observations) error {
	for _, m := range p.replica.Members() {
		if m.ID != id {
			continue
		}
		conn, err := p.pool.Connect(ctx, id, m.Address.Mesh)
		if err != nil {
			return err
		}
		_, err = pb.NewPeerServiceClient(conn).Share(ctx, o)
		return err
	}
	return fmt.Errorf("replica %q is not a member", id)
}

// agentService is AgentService, of two packages.
type agentService struct {
	pb.UnimplementedAgentServiceServer
	registry *registry.Registry
	ingest   *ingest.Ingest
}

// Register implements AgentService.
func (a *agentService) Register(ctx context.Context, r *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	return a.registry.Register(ctx, r)
}

// Rotate implements AgentService.
func (a *agentService) Rotate(ctx context.Context, r *pb.RotateRequest) (*pb.RotateResponse, error) {
	return a.registry.Rotate(ctx, r)
}

// Report implements AgentService.
func (a *agentService) Report(stream ingest.Stream) error { return a.ingest.Report(stream) }

func (p *parts) register(server *grpc.Server) {
	pb.RegisterAgentServiceServer(server, &agentService{registry: p.registry, ingest: p.ingest})
	pb.RegisterPeerServiceServer(server, &replica.Service{
		Replica: p.replica, Received: func(id string, o *pb.Observations) { p.board.Receive(id, o, time.Now()) },
	})
	p.ads.Register(server)
}
