package global

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/csrf"
	"github.com/periplus-mesh/periplus/trust"
)

// Limits of the HTTP listeners.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 2 * time.Second
)

// serveMesh serves agents, proxies and replicas.
func (p *parts) serveMesh(ctx context.Context) error {
	options := append(ads.ServerOptions(),
		grpc.Creds(credentials.NewTLS(trust.OptionalClientConfig(p.verifier, trust.AuthorizeAny))),
		grpc.ChainUnaryInterceptor(p.gate.Unary), grpc.ChainStreamInterceptor(p.gate.Stream),
	)
	server := grpc.NewServer(options...)
	p.register(server)
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	err := server.Serve(p.config.MeshListener)
	server.Stop()
	p.ads.Wait()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("mesh listener: %w", err)
	}
	return nil
}

// serveAdmin serves operators.
func (p *parts) serveAdmin(ctx context.Context) error {
	server := p.httpServer(p.api.Admin)
	server.TLSConfig = trust.OptionalClientConfig(p.own, trust.AuthorizeAny)
	server.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	return serveHTTP(ctx, server, tls.NewListener(p.config.AdminListener, server.TLSConfig), "admin")
}

// serveDashboard serves browsers and scrapers, if there is a listener.
func (p *parts) serveDashboard(ctx context.Context) error {
	if p.config.DashboardListener == nil {
		return nil
	}
	return serveHTTP(ctx, p.httpServer(csrf.Loopback(p.api.Dashboard)), p.config.DashboardListener, "dashboard")
}

func (p *parts) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: time.Minute, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(p.config.Log.Handler(), slog.LevelDebug), // clients that break off are no news
	}
}

func serveHTTP(ctx context.Context, server *http.Server, listener net.Listener, name string) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("%s listener: %w", name, err)
	case <-ctx.Done():
	}
	graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if server.Shutdown(graceful) != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s listener: %w", name, err)
	}
	return nil
}
