package up

import (
	"errors"
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
		ValidArgsFunction: func(c *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
			control, err := up.NewControl(o.Dir)
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			report, err := control.Report(c.Context())
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return report.Names(prefix, given), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, names []string) error {
			control, err := up.NewControl(o.Dir)
			if err != nil {
				return err
			}
			var failures []error
			for _, name := range names { // one that cannot be does not keep the others from it
				if err := control.Act(c.Context(), action, name); err != nil {
					failures = append(failures, err)
					continue
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: %s done\n", name, action)
			}
			if err := errors.Join(failures...); err != nil {
				return cli.Exit(codeOf(err), err)
			}
			return nil
		},
	}
}

// codeOf tells a mesh that does not answer from one that refuses.
func codeOf(err error) int {
	if errors.Is(err, up.ErrNoAnswer) {
		return cli.ExitTempFail
	}
	return cli.ExitData
}

func status(o *up.Options) *cobra.Command {
	command := &cobra.Command{Use: "status", Short: "List the processes of the mesh", Args: cobra.NoArgs}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		control, err := up.NewControl(o.Dir)
		if err != nil {
			return err
		}
		report, err := control.Report(c.Context())
		if err != nil {
			return cli.Exit(codeOf(err), err)
		}
		list := cli.List{Kind: "Process", Columns: []cli.Column{
			{Title: "PROCESS"}, {Title: "STATE"}, {Title: "PID"}, {Title: "AGE"}, {Title: "EXIT"}, {Title: "LOG", Wide: true},
		}}
		for _, p := range report.Processes {
			pid := ""
			if p.PID != 0 {
				pid = fmt.Sprint(p.PID)
			}
			list.Rows = append(list.Rows, cli.Row{Name: p.Name, Item: p, Cells: []string{
				p.Name, string(p.State), pid, cli.Age(time.Since(p.Since)), p.Exit, p.Log,
			}})
		}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}
