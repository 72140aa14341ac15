package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/cmd/internal/etcdflags"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Command is "periplus workload".
func Command() *cobra.Command {
	command := &cobra.Command{
		Use: "workload", Aliases: []string{"workloads"}, Short: "Register workloads of a cluster without Kubernetes, in its etcd",
		Long: `Registers workloads of a cluster without Kubernetes: machines and processes that have no sidecar that announces
them. The registry is in the cluster's etcd, which its agent follows with --etcd.`,
	}
	command.AddCommand(register(), list(), deregister())
	return command
}

// registryFlags are of every workload command.
type registryFlags struct {
	connection etcd.Connection
	cluster    string
}

func (f *registryFlags) add(command *cobra.Command, needsCluster bool) {
	etcdflags.Add(command.Flags(), &f.connection)
	command.Flags().StringVar(&f.cluster, "cluster", "", "name of the cluster, as it is registered (required)")
	command.MarkFlagRequired("etcd")
	if needsCluster {
		command.MarkFlagRequired("cluster")
	}
}

// connect makes a client; what it is refused for, is told at once.
func (f *registryFlags) connect(ctx context.Context) (*clientv3.Client, error) {
	if f.cluster != "" {
		if _, err := mesh.ParseClusterID(f.cluster); err != nil {
			return nil, cli.Exit(cli.ExitUsage, fmt.Errorf("--cluster: %w", err))
		}
	}
	client, err := f.connection.Client(ctx)
	switch {
	case err == nil:
		return client, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, f.failed(err)
	}
	return nil, cli.Exit(cli.ExitUsage, err)
}

// failed is an error of etcd, with the addresses that were asked.
func (f *registryFlags) failed(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: does it run, and are these its addresses?", registryTimeout)
	}
	return cli.Exit(cli.ExitTempFail, fmt.Errorf("etcd %s: %w", strings.Join(f.connection.Endpoints, ","), err))
}

func (f *registryFlags) root() string {
	return etcd.Root(f.connection.Prefix, mesh.ClusterID(f.cluster))
}

const registryTimeout = 10 * time.Second

func deregister() *cobra.Command {
	var f registryFlags
	var service string
	command := &cobra.Command{
		Use: "deregister NAME", Aliases: []string{"rm"}, Short: "Take a workload out of the registry, at once", Args: cobra.ExactArgs(1),
		Long: `Takes a workload out of the registry. The command that keeps it registered, if one runs, notices and ends.`,
	}
	f.add(command, true)
	command.Flags().StringVar(&service, "service", "", "service of the workload, NAME.NAMESPACE (required)")
	command.MarkFlagRequired("service")
	command.RunE = func(c *cobra.Command, args []string) error {
		of, err := mesh.ParseServiceName(service)
		if err != nil {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("--service: %w", err))
		}
		name := etcd.Name{Folder: etcd.Endpoints, Service: of, Workload: args[0]}
		client, err := f.connect(c.Context())
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(c.Context(), registryTimeout)
		defer cancel()
		if err := etcd.Deregister(ctx, client, f.root(), name); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return cli.Exit(cli.ExitData, fmt.Errorf("workload %q of %s is not registered: 'periplus workload list' lists those that are", args[0], of))
			}
			return f.failed(err)
		}
		fmt.Fprintf(c.OutOrStdout(), "workload/%s deregistered\n", args[0])
		return nil
	}
	return command
}
