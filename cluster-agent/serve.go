package clusteragent

import (
	"context"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	envoycatalog "github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// Keepalive towards proxies: a machine that vanished without a word is noticed after the sum of both.
const (
	keepaliveTime    = 5 * time.Second
	keepaliveTimeout = 3 * time.Second
	maxStreams       = 100 // of one proxy's connection; it needs three
)

// serveProxies is the cluster's one gRPC listener: xDS, load reports, announcements.
func (a *agent) serveProxies(ctx context.Context, source trust.Source) error {
	config := trust.ServerConfig(source, a.ownDomainOnly)
	options := append(ads.ServerOptions(),
		grpc.Creds(credentials.NewTLS(config)),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	)
	server := grpc.NewServer(options...)
	a.ads.Register(server)
	a.load.Register(server)
	a.registry.Register(server)
	stopped := make(chan struct{})
	running := context.AfterFunc(ctx, func() {
		defer close(stopped)
		a.registry.Freeze() // first: the streams that break now say nothing about the workloads
		server.Stop()
	})
	a.registry.Serving(time.Now())
	a.serving.Store(true)
	err := server.Serve(a.config.Listener)
	if running() {
		return fmt.Errorf("serve proxies: %w", err)
	}
	<-stopped
	return nil
}

func (a *agent) ownDomainOnly(id spiffeid.ID) error {
	if domain := a.table.Owner().Domain; id.TrustDomain() != domain {
		return fmt.Errorf("peer %q is not of this cluster's trust domain %q", id, domain.Name())
	}
	return nil
}

// authorize chooses what a proxy may see. Who it is comes from its certificate; the node only chooses within that.
func (a *agent) authorize(_ context.Context, peer adsserver.Peer, node *corev3.Node) (xds.Catalog[*mesh.Snapshot], error) {
	if err := a.ownDomainOnly(peer.ID); err != nil {
		return nil, err
	}
	cluster := a.credential.Cluster()
	view, err := translate.ViewFor(cluster, peer.ID, node)
	if err != nil {
		return nil, err
	}
	a.proxies.note(node, view.Role, time.Now())
	return envoycatalog.Of(view), nil
}
