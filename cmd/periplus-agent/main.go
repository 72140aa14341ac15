// Command periplus-agent is a cluster's agent with everything that it can read services from, Kubernetes included. It
// is the only command that links client-go; 'periplus agent' is the same without Kubernetes.
package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/kube"
	"github.com/periplus-mesh/periplus/cmd/internal/agentflags"
	"github.com/periplus-mesh/periplus/cmd/internal/etcdflags"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
)

func main() { process.Main(root()) }

func root() *cobra.Command {
	command := agentflags.Command("periplus-agent", kubernetes(), etcdflags.Source())
	command.Version = process.Version()
	return command
}

// kubernetes is the cluster's API server as a source.
func kubernetes() agentflags.Source {
	config, on := kube.Config{Version: process.Version()}, true
	return agentflags.Source{
		Flags: func(command *cobra.Command) {
			flags := command.Flags()
			flags.BoolVar(&on, "kubernetes", true, "read Services, EndpointSlices, Pods, Nodes and ServiceExports from the API server; by the pod's service account unless --kubeconfig says otherwise")
			flags.StringVar(&config.Kubeconfig, "kubeconfig", "", "file that says how to reach the API server")
			flags.StringVar(&config.Context, "kube-context", "", "context of the kubeconfig (default: its current one)")
		},
		Open: func(log *slog.Logger, metrics prometheus.Registerer) (clusteragent.Source, error) {
			if !on {
				return nil, nil
			}
			config.Log, config.Metrics = log, metrics
			return kube.New(config)
		},
	}
}
