// Package agentflags is the command of a cluster's agent, the same in cmd/periplus and in cmd/periplus-agent, but for
// the sources that each of them links.
package agentflags

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/credential"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Source is a source of services and endpoints that a program links.
type Source struct {
	// Flags adds the source's flags.
	Flags func(*cobra.Command)
	// Open makes it by those flags; nil and no error if they do not ask for it.
	Open func(*slog.Logger, prometheus.Registerer) (clusteragent.Source, error)
}

// Command runs an agent with the sources that its flags ask for.
func Command(use string, sources ...Source) *cobra.Command {
	var p process.Logging
	config := clusteragent.Config{}
	var tokenFile, address, admin string
	command := &cobra.Command{
		Use: use, Short: "Run a cluster's agent: it reports the cluster, follows the others and serves xDS to the proxies",
		Long: `Runs the agent of a cluster. The first start needs the token of 'periplus cluster register'; afterwards the agent
renews its credential by itself and starts without. It dials out to the controllers; nothing dials in but the
cluster's own proxies.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if err := process.Socket("workload-socket", config.WorkloadSocket); err != nil {
				return err
			}
			if config.JoinToken, err = readToken(tokenFile, config.DataDir); err != nil {
				return cli.Exit(cli.ExitData, err)
			}
			if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
				return err
			}
			config.Log, config.Metrics, config.Version = log, process.Registry(), process.Version()
			if config.Sources, err = open(sources, log, config.Metrics); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			listeners, err := process.ListenAll("address", address, "admin-address", admin)
			if err != nil {
				return err
			}
			config.Listener, config.AdminListener = listeners[0], listeners[1]
			if config.Advertise == "" {
				config.Advertise = address
			}
			return process.Interrupted(c.Context(), clusteragent.Run(c.Context(), config))
		},
	}
	p.Flags(command)
	flags(command, &config, &tokenFile, &address, &admin)
	for _, source := range sources {
		source.Flags(command)
	}
	return command
}

func flags(command *cobra.Command, config *clusteragent.Config, tokenFile, address, admin *string) {
	flags := command.Flags()
	flags.StringVar(&config.DataDir, "data-dir", "/var/lib/periplus/agent", "folder for the credential and the last good state")
	flags.StringVar(tokenFile, "join-token-file", "", "file with the token of 'periplus cluster register'; needed for the first start only")
	flags.StringVar(address, "address", ":15012", "where the cluster's proxies connect")
	flags.StringVar(&config.Advertise, "advertise", "", "host:port by which proxies reach --address (default: the same)")
	flags.StringVar(admin, "admin-address", "127.0.0.1:15014", "where /metrics, /ready and /debug are served, without TLS; '' for none")
	flags.StringVar(&config.WorkloadSocket, "workload-socket", "unix:///run/spire/agent/api.sock", "SPIFFE Workload API")
	flags.StringVar(&config.ServerSocket, "server-socket", "", "SPIRE server API, to federate the cluster's trust domain; '' for no federation")
	flags.StringVar(&config.ServerAddress, "server-address", "", "the same over TCP, host:port, in place of --server-socket; the agent's registration entry must be marked admin")
	flags.StringVar(&config.BundleEndpoint, "bundle-endpoint", "", "URL of the SPIRE server's bundle endpoint (profile https_spiffe), for the other clusters' servers; '' if they cannot reach it")
	flags.StringArrayVar(&config.ForgetDomains, "forget-domain", nil, "take the next bundle of this trust domain on its word: it was removed from the mesh and began anew (repeatable)")
	flags.StringArrayVar(&config.FederatePaths, "federate-path", nil, "make only registration entries with this SPIFFE ID path, or below it, federate, such as /ns/shop (repeatable; default: every workload's)")
	flags.StringVar(&config.ServicesFile, "services", "", "YAML file of services and static endpoints, watched")
	flags.DurationVar(&config.GracePeriod, "grace-period", 10*time.Second, "how long the endpoint of a sidecar stays listed after its stream is lost")
}

func open(sources []Source, log *slog.Logger, metrics prometheus.Registerer) (out []clusteragent.Source, err error) {
	for _, source := range sources {
		opened, err := source.Open(log, metrics)
		if err != nil {
			return nil, err
		}
		if opened != nil {
			out = append(out, opened)
		}
	}
	return out, nil
}

// readToken reads the token. A file that is gone is no error once the data folder has a credential: a token is needed
// for the first start only.
func readToken(path, dataDir string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dataDir, credential.FileName)); err == nil {
			return "", nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("--join-token-file: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
