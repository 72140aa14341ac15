package up

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

// Up is "periplus up" and what is below it.
func Up() *cobra.Command {
	var o up.Options
	var detach bool
	command := &cobra.Command{
		Use:   "up",
		Short: "Run a mesh of three regions on this machine, with real processes",
		Long: `Runs controllers, authorities, agents, east-west gateways, a small shop with a sidecar for each service, and
visitors that keep it busy: real processes, each with an address of its own in 127.0.0.0/8. No root, no Docker.

It shows where the traffic goes. Break it, with 'periplus up kill PROCESS' or a plain kill, and watch it heal.`,
		Example: `  periplus up
  periplus up --detach && periplus up status
  periplus up kill agent-eu-west`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			plan, err := up.NewPlan(o)
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if detach {
				return detached(c.Context(), plan, c.ErrOrStderr())
			}
			return up.Run(c.Context(), plan, c.ErrOrStderr(), view(c.OutOrStdout()).Show)
		},
	}
	flags := command.Flags()
	flags.IntVar(&o.Clusters, "clusters", 3, "number of clusters, one a region (1 to 9)")
	flags.Float64Var(&o.Rate, "rate", 10, "requests per second from the visitors of each zone")
	flags.StringVar(&o.Prefix, "prefix", "127.20", "first two parts of the loopback addresses to use")
	flags.StringVar(&o.Context, "context-name", "up", "name of the mesh in the contexts file")
	flags.StringVar(&o.SVIDTTL, "svid-ttl", "1h", "lifetime of the workloads' certificates")
	flags.BoolVarP(&detach, "detach", "d", false, "return once the mesh is ready; 'periplus down' ends it")
	command.PersistentFlags().StringVar(&o.Dir, "dir", "", "folder for state, logs and sockets; a second 'up' resumes from it (default: periplus/up in the user's state folder)")
	for action, short := range map[string]string{
		"kill":   "End a process at once, as a crash would (SIGKILL)",
		"stop":   "End a process in good order: it drains (SIGTERM)",
		"start":  "Start a process that was killed or stopped",
		"pause":  "Freeze a process (SIGSTOP)",
		"resume": "Let a frozen process go on (SIGCONT)",
	} {
		command.AddCommand(act(&o, action, short))
	}
	command.AddCommand(status(&o))
	return command
}

func view(out io.Writer) up.View {
	file, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	return up.View{Out: out, Terminal: terminal, Colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// Down is "periplus down".
func Down() *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use: "down", Short: "End the mesh that 'periplus up' runs", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			control, err := up.NewControl(dir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
			defer cancel()
			if err := control.Down(ctx); err != nil {
				return cli.Exit(cli.ExitTempFail, err)
			}
			fmt.Fprintln(c.OutOrStdout(), "The mesh has ended; its state is kept.")
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "folder of the mesh")
	return command
}
