package authority

import (
	"context"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
	"github.com/periplus-mesh/periplus/trust/authority/serverapi"
	"github.com/periplus-mesh/periplus/trust/authority/workloadapi"
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
	var metrics prometheus.Registerer
	if c.Metrics != nil {
		metrics = c.Metrics
	}
	authority, err := ca.Open(ca.Config{TrustDomain: c.TrustDomain, Dir: c.DataDir, Life: c.CATTL, Log: c.Log, Metrics: metrics})
	if err != nil {
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
	administration := grpc.NewServer(grpc.WaitForHandlers(true))
	serverapi.Register(administration, authority, c.Log)
	identities := workloadapi.Server(workloadapi.Config{Authority: authority, Life: c.SVIDTTL, Log: c.Log, Metrics: metrics})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return authority.Run(ctx) })
	g.Go(func() error { return serve(ctx, admin, administration) })
	g.Go(func() error { return serve(ctx, workloads, identities) })
	return g.Wait()
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
