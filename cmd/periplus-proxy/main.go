// Command periplus-proxy is the data plane alone: a sidecar, or an east-west gateway, with the flags that they have in
// cmd/periplus. It links neither client-go nor raft, so that it is small where it runs in thousands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/dataplane"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error: "+cli.Printable(cli.Message(err)))
		stop()
		os.Exit(cli.Code(err))
	}
}

func root() *cobra.Command {
	command := &cobra.Command{
		Use: "periplus-proxy", Short: "The data plane of Periplus alone: a sidecar, or an east-west gateway",
		SilenceUsage: true, SilenceErrors: true,
	}
	command.AddCommand(dataplane.Sidecar(), dataplane.EastWest())
	command.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nSee '%s --help'.", err, c.CommandPath()))
	})
	return command
}
