package authority

import (
	"context"
	"fmt"
	"net"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// Run serves until ctx ends, then closes every stream and returns nil. It fails at once on a configuration,
// data folder or socket that it cannot use.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := run(ctx, c); err != nil {
		return fmt.Errorf("authority of %q: %w", c.TrustDomain.Name(), err)
	}
	return nil
}

func run(ctx context.Context, c Config) error {
	unlock, err := lockFolder(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	metrics := newMetrics(c.Metrics)
	k, err := openKeeper(c, metrics)
	if err != nil {
		return err
	}
	r := rotation{keeper: k, life: c.CATTL, log: c.Log}
	if err := r.step(); err != nil { // there is a root before anybody can ask for one
		return err
	}
	admin, err := listen(c.ServerSocket, 0o600)
	if err != nil {
		return err
	}
	defer admin.Close()
	workloads, err := listen(c.WorkloadSocket, 0o777)
	if err != nil {
		return err
	}
	defer workloads.Close()
	c.Log.Info("authority serves", "trust_domain", c.TrustDomain.Name(), "server_socket", c.ServerSocket, "workload_socket", c.WorkloadSocket)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.run(ctx) })
	g.Go(func() error { return serve(ctx, admin, adminServer(c, k)) })
	g.Go(func() error { return serve(ctx, workloads, workloadServer(c, k, metrics)) })
	return g.Wait()
}

func adminServer(c Config, k *keeper) *grpc.Server {
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	entryv1.RegisterEntryServer(server, &entryAPI{keeper: k})
	bundlev1.RegisterBundleServer(server, &bundleAPI{keeper: k})
	trustdomainv1.RegisterTrustDomainServer(server, &trustDomainAPI{keeper: k})
	localauthorityv1.RegisterLocalAuthorityServer(server, &localAuthorityAPI{keeper: k, life: c.CATTL})
	return server
}

func workloadServer(c Config, k *keeper, m *metrics) *grpc.Server {
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.Creds(peerCredentials{}))
	workload.RegisterSpiffeWorkloadAPIServer(server, &workloadAPI{keeper: k, life: c.SVIDTTL, log: c.Log, metrics: m})
	return server
}

// serve ends with ctx. It does not wait for clients: Workload API streams have no end of their own.
func serve(ctx context.Context, l net.Listener, server *grpc.Server) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		server.Stop()
		close(stopped)
	})
	err := server.Serve(l)
	if stop() { // Serve failed by itself
		server.Stop()
		return err
	}
	<-stopped
	return nil
}
