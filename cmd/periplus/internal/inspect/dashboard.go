package inspect

import (
	"fmt"
	"os/exec"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
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
			for i, m := range response.Msg.GetMembers() {
				if m.GetDashboard() == "" {
					continue
				}
				fmt.Fprintln(c.OutOrStdout(), m.GetDashboard())
				if open && i == 0 {
					exec.CommandContext(c.Context(), "xdg-open", m.GetDashboard()).Start()
				}
			}
			return nil
		},
	}
	command.Flags().BoolVar(&open, "open", false, "open it in the browser")
	return command
}
