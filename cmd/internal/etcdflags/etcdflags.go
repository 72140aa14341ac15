// Package etcdflags is the flags by which every command finds the registry in etcd.
package etcdflags

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/cmd/internal/agentflags"
)

// Add adds them to flags; they are read into c.
func Add(flags *pflag.FlagSet, c *etcd.Connection) {
	flags.StringSliceVar(&c.Endpoints, "etcd", nil, "URLs of the members of the etcd cluster with the registry of workloads, such as https://etcd-1:2379")
	flags.StringVar(&c.Prefix, "etcd-prefix", etcd.DefaultPrefix, "where the registry begins in etcd")
	flags.StringVar(&c.CA, "etcd-ca", "", "PEM file with the roots of etcd's certificates (default: the system's)")
	flags.StringVar(&c.Cert, "etcd-cert", "", "PEM file with the client certificate for etcd")
	flags.StringVar(&c.Key, "etcd-key", "", "PEM file with its key")
	flags.StringVar(&c.User, "etcd-user", "", "user of etcd")
	flags.StringVar(&c.PasswordFile, "etcd-password-file", "", "file with the user's password")
}

// Source is the registry as a source of an agent; without --etcd there is none.
func Source() agentflags.Source {
	var config etcd.Config
	var command *cobra.Command
	return agentflags.Source{
		Flags: func(c *cobra.Command) {
			command = c
			Add(c.Flags(), &config.Connection)
			c.Flags().DurationVar(&config.LeaseTTL, "etcd-lease", time.Minute, "how long the records of the agent's sidecars stay in etcd without the agent")
		},
		Open: func(log *slog.Logger, metrics prometheus.Registerer) (clusteragent.Source, error) {
			if len(config.Connection.Endpoints) == 0 {
				return nil, nil
			}
			var err error
			if config.GracePeriod, err = command.Flags().GetDuration("grace-period"); err != nil {
				return nil, err
			}
			config.Log, config.Metrics = log, metrics
			return etcd.New(config)
		},
	}
}
