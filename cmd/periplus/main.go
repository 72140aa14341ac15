package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/dataplane"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error: "+cli.Printable(strings.ReplaceAll(cli.Message(err), "\n", "\n  ")))
		stop()
		os.Exit(cli.Code(err))
	}
}

func root() *cobra.Command {
	command := &cobra.Command{
		Use:   "periplus",
		Short: "One service mesh over many clusters, regions and networks",
		Long: `Periplus joins many clusters, in many regions and networks, into one service mesh.

Start with 'periplus up': a three-region mesh on this machine, to look at and to break.`,
		SilenceUsage: true, SilenceErrors: true,
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
	command.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nSee '%s --help'.", err, c.CommandPath()))
	})
	usage(command)
	return command
}

// usage gives wrong arguments the exit code for it, and a noun without a verb its help.
func usage(command *cobra.Command) {
	for _, c := range command.Commands() {
		usage(c)
	}
	if check := command.Args; check != nil {
		command.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
			}
			return nil
		}
	}
	if command.RunE == nil && command.HasSubCommands() && command.HasParent() {
		command.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()))
			}
			return c.Help()
		}
	}
}

// connect makes a client of the mesh that --context and the contexts file say.
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
