package up

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

func act(o *up.Options, action, short string) *cobra.Command {
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

func status(o *up.Options) *cobra.Command {
	command := &cobra.Command{Use: "status", Short: "List the processes of the mesh", Args: cobra.NoArgs}
	format := output.Flag(command, "table", "json", "yaml")
	command.RunE = func(c *cobra.Command, _ []string) error {
		control, err := up.NewControl(o.Dir)
		if err != nil {
			return err
		}
		report, err := control.Report(c.Context())
		if err != nil {
			return cli.Exit(cli.ExitTempFail, err)
		}
		if *format != "table" {
			return cli.Document(c.OutOrStdout(), *format, report)
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
