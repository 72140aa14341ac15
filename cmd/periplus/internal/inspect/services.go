package inspect

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Services lists what the mesh offers.
func Services() *cobra.Command {
	command := &cobra.Command{Use: "services", Aliases: []string{"service"}, Short: "List the services of the mesh", Args: cobra.NoArgs}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		response, err := client.Mesh.ListServices(c.Context(), connect.NewRequest(&pb.ListServicesRequest{}))
		if err != nil {
			return err
		}
		list := cli.List{Kind: "Service", Columns: []cli.Column{{Title: "SERVICE"}, {Title: "ENDPOINTS"}, {Title: "CLUSTERS"}}}
		for _, s := range response.Msg.GetItems() {
			var healthy, total uint32
			var clusters []string
			for _, c := range s.GetClusters() {
				healthy, total = healthy+c.GetHealthyEndpoints(), total+c.GetEndpoints()
				name := c.GetCluster()
				if !c.GetExported() {
					name += " (not exported)"
				}
				clusters = append(clusters, name)
			}
			name := s.GetName().GetName() + "." + s.GetName().GetNamespace()
			list.Rows = append(list.Rows, cli.Row{Name: name, Item: s, Cells: []string{name, fmt.Sprintf("%d/%d", healthy, total), strings.Join(clusters, ", ")}})
		}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}
