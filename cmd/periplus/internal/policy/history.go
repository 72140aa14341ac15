package policy

import (
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func history() *cobra.Command {
	var namespace string
	var limit uint32
	command := &cobra.Command{
		Use: "history [KIND [NAME] | KIND/NAME]", Short: "Show who changed what, newest first", Args: cobra.MaximumNArgs(2), ValidArgsFunction: names,
	}
	format := output.ListFlag(command)
	command.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default: all)")
	command.Flags().Uint32Var(&limit, "limit", 100, "most entries to show, at most 500")
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		kind, name := selected(args)
		response, err := client.Policies.PolicyHistory(c.Context(), connect.NewRequest(&pb.PolicyHistoryRequest{
			Kind: kind, Namespace: namespace, Name: name, Limit: limit,
		}))
		if err != nil {
			return err
		}
		list := cli.List{Kind: "Revision", Columns: []cli.Column{
			{Title: "REVISION"}, {Title: "AGE"}, {Title: "OPERATION"}, {Title: "KIND"}, {Title: "POLICY"}, {Title: "AUTHOR"}, {Title: "DIGEST"}, {Title: "CHAIN", Wide: true},
		}}
		for _, r := range response.Msg.GetItems() {
			list.Rows = append(list.Rows, cli.Row{Name: fmt.Sprint(r.GetRevision()), Item: r, Cells: []string{
				fmt.Sprint(r.GetRevision()), cli.Age(time.Since(time.UnixMilli(r.GetAtMs()))), r.GetOperation(), r.GetKind(),
				r.GetNamespace() + "/" + r.GetName(), r.GetAuthor(), short(r.GetDigest()), short(r.GetChain()),
			}})
		}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}
