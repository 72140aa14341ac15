package up

import (
	"context"
	"errors"
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

It shows where the traffic goes. Break it, with 'periplus up kill PROCESS' or a plain kill, and watch it heal. Other
commands talk to this mesh from now on ('periplus config use-context' goes back to another). Ctrl-C ends it in good
order, a second one at once. It goes on where it ended when it is started again.`,
		Example: `  periplus up
  periplus up --detach && periplus up status
  periplus up kill agent-eu-west`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			plan, err := planned(o)
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
	flags.IntVar(&o.Clusters, "clusters", 0, "number of clusters, one a region, 1 to 9 (default: as many as last time in this folder, or 3)")
	flags.Float64Var(&o.Rate, "rate", 10, "requests per second from the visitors of each zone")
	flags.StringVar(&o.Prefix, "prefix", "", "first two parts of the loopback addresses to use (default: those of this folder, or 127.20)")
	flags.StringVar(&o.Context, "context-name", "up", "name of the mesh in the contexts file")
	flags.StringVar(&o.SVIDTTL, "svid-ttl", "1h", "lifetime of the workloads' certificates")
	flags.BoolVarP(&detach, "detach", "d", false, "return once the mesh is ready; 'periplus down' ends it")
	command.PersistentFlags().StringVar(&o.Dir, "dir", "", "folder for state, logs and sockets; a second 'up' resumes from it (default: periplus/up in the user's state folder)")
	command.AddCommand(
		act(&o, "kill", "End a process at once, as a crash would (SIGKILL)"),
		act(&o, "stop", "End a process in good order: it drains (SIGTERM)"),
		act(&o, "start", "Start a process that was killed or stopped"),
		act(&o, "pause", "Freeze a process (SIGSTOP)"),
		act(&o, "resume", "Let a frozen process go on (SIGCONT)"),
		status(&o),
	)
	return command
}

func planned(o up.Options) (*up.Plan, error) {
	if o.Rate == 0 {
		return nil, errors.New("--rate 0: want more than 0") // not "as usual", which it means in Options
	}
	o, err := o.Resumed()
	if err != nil {
		return nil, err
	}
	return up.NewPlan(o)
}

func view(out io.Writer) up.View {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return up.View{Out: out}
	}
	return up.View{Out: out, Terminal: true, Colour: os.Getenv("NO_COLOR") == "", Size: func() (columns, rows int) {
		columns, rows, err := term.GetSize(int(file.Fd()))
		if err != nil || columns <= 0 || rows <= 0 {
			return 80, 24
		}
		return columns, rows
	}}
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
			ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
			defer cancel()
			if err := control.Down(ctx); err != nil {
				return cli.Exit(cli.ExitTempFail, err)
			}
			fmt.Fprintln(c.OutOrStdout(), "The mesh has ended; its state is kept.")
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "folder of the mesh (default: that of 'periplus up')")
	return command
}
