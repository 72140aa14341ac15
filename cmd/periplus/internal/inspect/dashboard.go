package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Dashboard says where people look.
func Dashboard() *cobra.Command {
	var open bool
	command := &cobra.Command{
		Use: "dashboard", Short: "Print the addresses of the dashboard", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := operator.Connect(c)
			if err != nil {
				return err
			}
			response, err := client.Mesh.Overview(c.Context(), connect.NewRequest(&pb.OverviewRequest{}))
			if err != nil {
				return err
			}
			var first string
			for _, m := range response.Msg.GetMembers() {
				if m.GetDashboard() == "" {
					continue
				}
				fmt.Fprintln(c.OutOrStdout(), m.GetDashboard())
				first = cmp.Or(first, m.GetDashboard())
			}
			if first == "" {
				return cli.Exit(cli.ExitData, errors.New("no replica serves a dashboard: 'periplus global run --dashboard-address' makes it"))
			}
			if !open {
				return nil
			}
			if output, err := exec.CommandContext(c.Context(), "xdg-open", first).CombinedOutput(); err != nil {
				return fmt.Errorf("open %s: %w\n%s", first, err, output)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&open, "open", false, "open it in the browser")
	return command
}
