package clusteragent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/cluster-agent/federate"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

// Config of an agent.
type Config struct {
	// DataDir is the folder of the credential and of the state; made if it is not there. One agent at a time.
	DataDir string
	// JoinToken is the content of the token file; "" once the folder has a credential.
	JoinToken string
	// Version of the program, for people.
	Version string

	// Listener is for the cluster's proxies; TLS is added here. Run closes it.
	Listener net.Listener
	// Advertise is the host:port by which the proxies reach Listener; "" = the listener's own address.
	Advertise string
	// AdminListener serves metrics, readiness and debug pages over plain HTTP; nil: none. Run closes it. Debug pages
	// answer loopback clients only, whatever it listens on.
	AdminListener net.Listener
	// WorkloadSocket is the SPIFFE Workload API, unix:///path, that gives the agent its SVID
	// spiffe://<trust domain>/periplus/agent.
	WorkloadSocket string
	// Source is the agent's SVID; nil = from WorkloadSocket, which is needed then.
	Source trust.Source
	// ServerSocket is the SPIRE server's admin API, unix:///path; "" = do not federate.
	ServerSocket string
	// ServerAddress is the SPIRE server's API over TCP, host:port, in place of ServerSocket where the agent is not on the
	// server's machine; the agent's registration entry must be marked admin then.
	ServerAddress string
	// Server is the SPIRE server; nil = at ServerSocket or ServerAddress.
	Server federate.Server
	// BundleEndpoint is the URL of the SPIRE server's bundle endpoint, profile https_spiffe, which is told to the other
	// clusters; "" = none, the mesh alone carries the bundle.
	BundleEndpoint string
	// FederatePaths limits which registration entries are made to federate: those whose SPIFFE ID's path is one of these
	// or below it; nil = every workload's.
	FederatePaths []string
	// ForgetDomains are trust domains that were removed from the mesh and began anew, with roots that nobody signed: the
	// next bundle of each is taken on its word.
	ForgetDomains []string
	// ServicesFile is the file source, see package file; "" = none.
	ServicesFile string
	// Sources are further sources, each with a layer of its own: Kubernetes, etcd.
	Sources []Source
	// GracePeriod is how long an endpoint whose sidecar's stream was lost stays listed, unhealthy; 0 = 10 s. An
	// endpoint that was read from disk stays as it was for three times as long, once the agent serves.
	GracePeriod time.Duration
	// Dial connects to a controller; nil = TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Store holds what the agent knows, for programs that look on; nil = a store of its own.
	Store *mesh.Store

	// Log; nil discards.
	Log *slog.Logger
	// Metrics; nil = a registry of its own.
	Metrics *prometheus.Registry
}

func (c *Config) validate() error {
	switch {
	case c.DataDir == "":
		return errors.New("agent: data folder is needed")
	case c.Listener == nil:
		return errors.New("agent: listener is needed")
	case c.WorkloadSocket == "" && c.Source == nil:
		return errors.New("agent: workload socket is needed")
	case c.ServerSocket != "" && c.ServerAddress != "":
		return errors.New("agent: the SPIRE server is at a socket or at an address, not both")
	case c.GracePeriod < 0:
		return fmt.Errorf("agent: grace period %s is negative", c.GracePeriod)
	}
	if c.Advertise == "" {
		c.Advertise = c.Listener.Addr().String()
	}
	if c.GracePeriod == 0 {
		c.GracePeriod = 10 * time.Second
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if c.Store == nil {
		c.Store = new(mesh.Store)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	return nil
}
