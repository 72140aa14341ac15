package policy

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Command is "periplus policy".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "policy", Aliases: []string{"policies"}, Short: "Apply policies to the whole mesh, and see their history"}
	command.AddCommand(apply(), get(), remove(), history())
	return command
}

var kinds = []string{"DestinationRule", "VirtualService", "AuthorizationPolicy"}

// kindOf knows the short names that kubectl has for Istio's kinds.
func kindOf(typed string) string {
	short := map[string]string{"dr": "DestinationRule", "vs": "VirtualService", "ap": "AuthorizationPolicy"}
	return cmp.Or(short[strings.ToLower(typed)], typed)
}

// selected reads KIND and NAME, of which the last may be missing, or KIND/NAME.
func selected(args []string) (kind, name string) {
	if len(args) == 1 {
		args = strings.SplitN(args[0], "/", 2)
	}
	args = append(args, "", "")
	return kindOf(args[0]), args[1]
}

func get() *cobra.Command {
	var namespace string
	command := &cobra.Command{
		Use: "get [KIND [NAME] | KIND/NAME]", Short: "List the policies in force", Args: cobra.MaximumNArgs(2), ValidArgsFunction: names,
		Example: "  periplus policy get\n  periplus policy get virtualservice catalog -n shop -o yaml",
	}
	format := output.ListFlag(command)
	command.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default: all)")
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		kind, name := selected(args)
		response, err := client.Policies.GetPolicies(c.Context(), connect.NewRequest(&pb.GetPoliciesRequest{Kind: kind, Namespace: namespace, Name: name}))
		if err != nil {
			return err
		}
		items := response.Msg.GetItems()
		if name != "" && len(items) == 0 {
			return cli.Exit(cli.ExitData, fmt.Errorf("%s %q not found", kind, name))
		}
		if name != "" && *format == "yaml" { // one policy by name: the document as it was given
			for i, p := range items {
				if i > 0 {
					fmt.Fprintln(c.OutOrStdout(), "---")
				}
				fmt.Fprintf(c.OutOrStdout(), "%s\n", strings.TrimRight(string(p.GetSource()), "\n"))
			}
			return nil
		}
		return printPolicies(c.OutOrStdout(), *format, items)
	}
	return command
}

func printPolicies(w io.Writer, format string, items []*pb.Policy) error {
	list := cli.List{Kind: "Policy", Columns: []cli.Column{
		{Title: "KIND"}, {Title: "NAMESPACE"}, {Title: "NAME"}, {Title: "REVISION"}, {Title: "CLUSTERS"}, {Title: "AUTHOR", Wide: true}, {Title: "DIGEST", Wide: true},
	}}
	for _, p := range items {
		clusters := strings.Join(p.GetClusters(), ",")
		if clusters == "" {
			clusters = "all"
		}
		list.Rows = append(list.Rows, cli.Row{Name: p.GetNamespace() + "/" + p.GetName(), Item: p, Cells: []string{
			p.GetKind(), p.GetNamespace(), p.GetName(), fmt.Sprint(p.GetRevision()), clusters, p.GetAuthor(), short(p.GetDigest()),
		}})
	}
	return list.Print(w, format)
}

func short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

func remove() *cobra.Command {
	var namespace string
	command := &cobra.Command{
		Use: "delete KIND NAME | KIND/NAME", Short: "Delete a policy", Args: cobra.RangeArgs(1, 2), ValidArgsFunction: names,
		RunE: func(c *cobra.Command, args []string) error {
			kind, name := selected(args)
			if name == "" {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("which %s? Name it: periplus policy delete %s NAME", kind, args[0]))
			}
			client, err := operator.Connect(c)
			if err != nil {
				return err
			}
			response, err := client.Policies.DeletePolicy(c.Context(), connect.NewRequest(&pb.DeletePolicyRequest{Kind: kind, Namespace: namespace, Name: name}))
			if connect.CodeOf(err) == connect.CodeNotFound && !c.Flags().Changed("namespace") {
				return cli.Exit(cli.ExitData, fmt.Errorf("%s (-n names another namespace)", cli.Message(err)))
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s/%s deleted (revision %d)\n", strings.ToLower(kind), namespace, name, response.Msg.GetRevision())
			return nil
		},
	}
	command.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the policy")
	return command
}

// names completes kinds, then names in force.
func names(c *cobra.Command, args []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) == 0 {
		return kinds, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := operator.Connect(c)
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	response, err := client.Policies.GetPolicies(c.Context(), connect.NewRequest(&pb.GetPoliciesRequest{Kind: kindOf(args[0])}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, p := range response.Msg.GetItems() {
		if strings.HasPrefix(p.GetName(), prefix) {
			names = append(names, p.GetName())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
