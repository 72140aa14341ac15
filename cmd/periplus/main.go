package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/dataplane"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func main() { process.Main(root()) }

func root() *cobra.Command {
	command := &cobra.Command{
		Use:   "periplus",
		Short: "One service mesh over many clusters, regions and networks",
		Long: `Periplus joins many clusters, in many regions and networks, into one service mesh.

Start with 'periplus up': a three-region mesh on this machine, to look at and to break.`,
	}
	command.AddGroup(
		&cobra.Group{ID: "start", Title: "Try it:"},
		&cobra.Group{ID: "operate", Title: "Operate a mesh:"},
		&cobra.Group{ID: "run", Title: "Run a part of it:"},
	)
	command.PersistentFlags().String("context", "", "the mesh to talk to, of those in the contexts file (or $"+cli.EnvContext+")")
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			command.AddCommand(c)
		}
	}
	add("start", upCommand(), downCommand())
	add("operate", clusterCommand(), policyCommand(), explainCommand(), servicesCommand(), workloadCommand(), trustCommand(), dashboardCommand(), configCommand())
	add("run", globalCommand(), agentCommand(), dataplane.Sidecar(), dataplane.EastWest(), authorityCommand(), demoCommand(), envoyCommand(), svidCommand(), grpcCommand())
	command.AddCommand(versionCommand())
	return command
}

// connectTo makes a client of the mesh that --context and the contexts file say.
func connectTo(command *cobra.Command) (*cli.Client, error) {
	path, err := cli.ConfigPath()
	if err != nil {
		return nil, err
	}
	config, err := cli.LoadConfig(path)
	if err != nil {
		return nil, cli.Exit(cli.ExitData, err)
	}
	name, _ := command.Flags().GetString("context")
	context, err := config.Pick(name)
	if err != nil {
		return nil, err
	}
	return context.Connect()
}

// outputFlag adds -o to a command that prints lists.
func outputFlag(command *cobra.Command) *string {
	output := command.Flags().StringP("output", "o", "table", "how to print: "+strings.Join(cli.Formats(), ", "))
	command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(cli.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return output
}
