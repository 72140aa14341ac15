package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/agentflags"
	"github.com/periplus-mesh/periplus/cmd/internal/dataplane"
	"github.com/periplus-mesh/periplus/cmd/internal/etcdflags"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/authority"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/cluster"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/contexts"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/demo"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/envoy"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/global"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/grpc"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/inspect"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/policy"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/svid"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/up"
	"github.com/periplus-mesh/periplus/cmd/periplus/internal/workload"
)

func main() { process.Main(root()) }

func root() *cobra.Command {
	command := &cobra.Command{
		Use:   "periplus",
		Short: "One service mesh over many clusters, regions and networks",
		Long: `Periplus joins many clusters, in many regions and networks, into one service mesh.

Start with 'periplus up': a three-region mesh on this machine, to look at and to break.`,
		Version: process.Version(),
	}
	command.AddGroup(
		&cobra.Group{ID: "start", Title: "Try it:"},
		&cobra.Group{ID: "operate", Title: "Operate a mesh:"},
		&cobra.Group{ID: "run", Title: "Run a part of it:"},
	)
	operator.ContextFlag(command)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			command.AddCommand(c)
		}
	}
	add("start", up.Up(), up.Down())
	add("operate", cluster.Command(), policy.Command(), inspect.Explain(), inspect.Services(), inspect.ProxyStatus(), workload.Command(), inspect.Trust(), inspect.Dashboard(), contexts.Command())
	add("run", global.Command(), agentflags.Command("agent", etcdflags.Source()), dataplane.Sidecar(), dataplane.EastWest(), authority.Command(),
		demo.Command(), envoy.Command(), svid.Command(), grpc.Command())
	command.AddCommand(version())
	return command
}

func version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintln(c.OutOrStdout(), "periplus "+process.Version())
		},
	}
}
