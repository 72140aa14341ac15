package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

func upCommand() *cobra.Command {
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
		command.AddCommand(actCommand(&o, action, short))
	}
	command.AddCommand(statusCommand(&o))
	return command
}

func view(out io.Writer) up.View {
	file, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	return up.View{Out: out, Terminal: terminal, Colour: terminal && os.Getenv("NO_COLOR") == ""}
}

func actCommand(o *up.Options, action, short string) *cobra.Command {
	return &cobra.Command{
		Use: action + " PROCESS...", Short: short, Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			control, err := up.NewControl(o.Dir)
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			report, err := control.Report(c.Context())
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return report.Names(prefix), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, names []string) error {
			control, err := up.NewControl(o.Dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := control.Act(c.Context(), action, name); err != nil {
					return cli.Exit(cli.ExitData, err)
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: %s done\n", name, action)
			}
			return nil
		},
	}
}

func statusCommand(o *up.Options) *cobra.Command {
	command := &cobra.Command{Use: "status", Short: "List the processes of the mesh", Args: cobra.NoArgs}
	output := command.Flags().StringP("output", "o", "table", "how to print: table, json, yaml")
	command.RunE = func(c *cobra.Command, _ []string) error {
		control, err := up.NewControl(o.Dir)
		if err != nil {
			return err
		}
		report, err := control.Report(c.Context())
		if err != nil {
			return cli.Exit(cli.ExitTempFail, err)
		}
		if *output != "table" {
			return cli.Document(c.OutOrStdout(), *output, report)
		}
		list := cli.List{Kind: "Process", Columns: []cli.Column{{Title: "PROCESS"}, {Title: "STATE"}, {Title: "PID"}, {Title: "AGE"}, {Title: "EXIT"}}}
		for _, p := range report.Processes {
			pid := ""
			if p.PID != 0 {
				pid = fmt.Sprint(p.PID)
			}
			list.Rows = append(list.Rows, cli.Row{Name: p.Name, Cells: []string{p.Name, string(p.State), pid, cli.Age(time.Since(p.Since)), p.Exit}})
		}
		return list.Print(c.OutOrStdout(), "table")
	}
	return command
}

func downCommand() *cobra.Command {
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

// detached runs the same command in a session of its own and waits until its mesh is ready.
func detached(ctx context.Context, plan *up.Plan, out io.Writer) error {
	if err := up.CheckFolder(plan.Dir); err != nil {
		return err // or the one that runs there would seem to be the one that was asked for
	}
	if err := os.MkdirAll(filepath.Join(plan.Dir, "logs"), 0o700); err != nil {
		return err
	}
	path := filepath.Join(plan.Dir, "logs", "up.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	binary := filepath.Join(plan.Dir, "up") // 'go run' deletes what it built when this command returns
	if err := up.CopyFile(plan.Executable, binary); err != nil {
		return err
	}
	child := exec.Command(binary, "up", "--dir", plan.Dir, "--clusters", fmt.Sprint(len(plan.Clusters)), "--prefix", plan.Prefix,
		"--rate", fmt.Sprint(plan.Rate), "--context-name", plan.Context, "--svid-ttl", plan.SVIDTTL)
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	return awaitReady(ctx, plan, ended, path, out)
}

func awaitReady(ctx context.Context, plan *up.Plan, ended <-chan error, log string, out io.Writer) error {
	control, err := up.NewControl(plan.Dir)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "Starting; progress in "+log)
	for {
		if report, err := control.Report(ctx); err == nil && report.Ready {
			fmt.Fprintf(out, "The mesh is ready.\nDashboard: %s\n'periplus up status' lists its processes, 'periplus down' ends it.\n", report.Dashboard)
			return nil
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(log)
			return fmt.Errorf("the mesh did not start:\n%s", text)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
