package eastwest

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/structpb"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/announce"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// identityWait is how long a start waits for an identity before it goes on with what is on disk. Connections that
// pass through need none.
const identityWait = time.Second

// identity follows the Workload API. Until it answers, the material is empty: it convinces nobody.
type identity struct{ watch.Value[*trust.Material] }

func newIdentity() *identity {
	i := &identity{}
	i.Set(&trust.Material{Certificate: &tls.Certificate{}})
	return i
}

func (i *identity) follow(ctx context.Context, c Config) error {
	source := c.Source
	if source == nil {
		followed, err := trust.Watch(ctx, c.WorkloadSocket, c.Log)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		defer followed.Close()
		_ = c.Metrics.Register(followed)
		source = followed
	}
	for {
		material, next := source.Get()
		i.Set(material)
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// wait returns once there is an identity, or ctx is done.
func (i *identity) wait(ctx context.Context) {
	for {
		material, next := i.Get()
		if !material.ID.IsZero() {
			return
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

// agent accepts the agent of the own trust domain.
func (i *identity) agent(peer spiffeid.ID) error {
	own := i.Latest().ID.TrustDomain()
	if peer.TrustDomain() != own || peer.Path() != "/periplus/agent" {
		return fmt.Errorf("peer is %q, want the agent of %q", peer, own.Name())
	}
	return nil
}

// controller accepts any replica of the control plane.
func (c *Config) controller(peer spiffeid.ID) error {
	if peer.TrustDomain() != c.plane || !strings.HasPrefix(peer.Path(), "/controller/") {
		return fmt.Errorf("peer is %q, want a controller of %q", peer, c.plane.Name())
	}
	return nil
}

func (c *Config) targets(own *identity) []adsclient.Target {
	var targets []adsclient.Target
	if c.Agent != "" {
		targets = append(targets, adsclient.Target{Name: "agent", Address: c.Agent, Authorize: own.agent})
	}
	for _, address := range c.Controllers {
		targets = append(targets, adsclient.Target{Name: "controller " + address, Address: address, Authorize: c.controller})
	}
	return targets
}

func (c *Config) node() *corev3.Node {
	metadata, _ := structpb.NewStruct(map[string]any{
		"NETWORK": c.Network, "BIND": c.Bind.String(), "GATEWAY_PORT": float64(c.Port),
	})
	return &corev3.Node{
		Id: "gateway~" + c.Cluster + "~" + c.Name, Cluster: "eastwest",
		Locality: &corev3.Locality{Region: c.Region, Zone: c.Zone}, Metadata: metadata,
	}
}

// followXDS keeps the table up to date.
func (r *runner) followXDS(ctx context.Context) error {
	err := adsclient.Run(ctx, adsclient.Config{
		Targets: r.config.targets(r.identity), Source: r.identity, Node: r.config.node(),
		Wildcard: []xds.Type{xds.Cluster, xds.Listener}, Follow: true, Apply: r.gateway.tables.apply,
		DiskCache: r.config.cacheDir(), Status: &r.xds, Log: r.config.Log, Metrics: r.config.Metrics,
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// announceSelf makes the gateway an endpoint of its network, if there is an agent to tell.
func (r *runner) announceSelf(ctx context.Context) error {
	if r.config.Agent == "" {
		return nil
	}
	r.identity.wait(ctx) // the agent would not know who this is
	return announce.Run(ctx, announce.Config{
		Target: announce.Target{Address: r.config.Agent, Authorize: r.identity.agent}, Source: r.identity,
		Announcement: &r.announcement, Status: &r.announced, Log: r.config.Log,
	})
}

func (c *Config) announcement(health periplusv1.Health) *periplusv1.AnnounceRequest {
	return &periplusv1.AnnounceRequest{
		Name: c.Name, Address: c.Advertise.String(), Network: c.Network, Health: health, Weight: 1,
		Locality: &periplusv1.Locality{Region: c.Region, Zone: c.Zone},
		Gateway:  &periplusv1.AnnouncedGateway{Port: uint32(c.Port)},
	}
}
