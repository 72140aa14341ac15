package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/trust/authority"
)

func agentCommand() *cobra.Command {
	var p process.Logging
	config := clusteragent.Config{}
	var tokenFile, address, admin string
	command := &cobra.Command{
		Use: "agent", Short: "Run a cluster's agent: it reports the cluster, follows the others and serves xDS to the proxies",
		Long: `Runs the agent of a cluster. The first start needs the token of 'periplus cluster register'; afterwards the agent
renews its credential by itself and starts without. It dials out to the controllers; nothing dials in but the
cluster's own proxies.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if config.JoinToken, err = readToken(tokenFile); err != nil {
				return cli.Exit(cli.ExitData, err)
			}
			if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
				return err
			}
			listeners, err := process.ListenAll("address", address, "admin-address", admin)
			if err != nil {
				return err
			}
			config.Listener, config.AdminListener = listeners[0], listeners[1]
			config.Advertise = or(config.Advertise, address)
			config.Log, config.Metrics, config.Version = log, process.Registry(), version()
			return process.Interrupted(c.Context(), clusteragent.Run(c.Context(), config))
		},
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&config.DataDir, "data-dir", "/var/lib/periplus/agent", "folder for the credential and the last good state")
	flags.StringVar(&tokenFile, "join-token-file", "", "file with the token of 'periplus cluster register'; needed for the first start only")
	flags.StringVar(&address, "address", ":15012", "where the cluster's proxies connect")
	flags.StringVar(&config.Advertise, "advertise", "", "host:port by which proxies reach --address (default: the same)")
	flags.StringVar(&admin, "admin-address", "127.0.0.1:15014", "where /metrics, /ready and /debug are served, without TLS; '' for none")
	flags.StringVar(&config.WorkloadSocket, "workload-socket", "unix:///run/spire/agent/api.sock", "SPIFFE Workload API")
	flags.StringVar(&config.ServerSocket, "server-socket", "", "SPIRE server API, to federate the cluster's trust domain; '' for no federation")
	flags.StringVar(&config.ServicesFile, "services", "", "YAML file of services and static endpoints, watched")
	flags.DurationVar(&config.GracePeriod, "grace-period", 10*time.Second, "how long the endpoint of a sidecar stays listed after its stream is lost")
	return command
}

// readToken reads the token; a file that is gone is no error, for it is needed once only.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

func authorityCommand() *cobra.Command {
	var p process.Logging
	config := authority.Config{}
	var domain string
	command := &cobra.Command{
		Use: "authority", Short: "Run the embedded stand-in for SPIRE: SPIRE server API and SPIFFE Workload API for one trust domain",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if config.TrustDomain, err = spiffeid.TrustDomainFromString(domain); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
				return err
			}
			config.Log, config.Metrics = log, process.Registry()
			return process.Interrupted(c.Context(), authority.Run(c.Context(), config))
		},
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&domain, "trust-domain", "", "SPIFFE trust domain (required)")
	flags.StringVar(&config.DataDir, "data-dir", "/var/lib/periplus/authority", "folder for keys and entries")
	flags.StringVar(&config.ServerSocket, "server-socket", "", "where the SPIRE server API is served, unix:///path (required)")
	flags.StringVar(&config.WorkloadSocket, "workload-socket", "", "where the SPIFFE Workload API is served, unix:///path (required)")
	flags.DurationVar(&config.CATTL, "ca-ttl", 30*24*time.Hour, "lifetime of a root")
	flags.DurationVar(&config.SVIDTTL, "svid-ttl", time.Hour, "lifetime of a workload's certificate")
	for _, name := range []string{"trust-domain", "server-socket", "workload-socket"} {
		command.MarkFlagRequired(name)
	}
	return command
}
