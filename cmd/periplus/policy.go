package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func policyCommand() *cobra.Command {
	command := &cobra.Command{Use: "policy", Aliases: []string{"policies"}, Short: "Apply policies to the whole mesh, and see their history"}
	command.AddCommand(policyApply(), policyGet(), policyDelete(), policyHistory())
	return command
}

var policyKinds = []string{"DestinationRule", "VirtualService", "AuthorizationPolicy"}

func policyApply() *cobra.Command {
	var file string
	var dryRun string
	command := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Apply the policies of a file: Istio DestinationRule, VirtualService, AuthorizationPolicy",
		Long: `Applies every policy of a YAML or JSON file, all or none. Each that differs from what is in force becomes a revision.
What a policy says and the mesh does not do is refused, with file, line and field; it is never ignored.`,
		Example: "  periplus policy apply -f rule.yaml\n  cat rule.yaml | periplus policy apply -f - --dry-run=server",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(command)
	command.Flags().StringVarP(&file, "filename", "f", "", "file with the policies, '-' for standard input (required)")
	command.Flags().StringVar(&dryRun, "dry-run", "none", "none, or server: check everything and change nothing")
	command.Flags().Lookup("dry-run").NoOptDefVal = "server"
	command.MarkFlagRequired("filename")
	command.RunE = func(c *cobra.Command, _ []string) error {
		if dryRun != "none" && dryRun != "server" {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("--dry-run=%s: want none or server", dryRun))
		}
		documents, err := cli.ReadInput(file, c.InOrStdin())
		if err != nil {
			return cli.Exit(cli.ExitData, err)
		}
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		response, err := client.Policies.ApplyPolicy(c.Context(), connect.NewRequest(&pb.ApplyPolicyRequest{
			Documents: documents, File: file, DryRun: dryRun == "server",
		}))
		if err != nil {
			return err
		}
		return printApplied(c.OutOrStdout(), *output, dryRun, response.Msg.GetItems())
	}
	return command
}

func printApplied(w io.Writer, output, dryRun string, items []*pb.AppliedPolicy) error {
	if output != "table" && output != "wide" {
		list := cli.List{Kind: "AppliedPolicy"}
		for _, p := range items {
			list.Rows = append(list.Rows, cli.Row{Name: p.GetNamespace() + "/" + p.GetName(), Item: p})
		}
		return list.Print(w, output)
	}
	for _, p := range items {
		suffix := ""
		if p.GetRevision() > 0 {
			suffix = fmt.Sprintf(" (revision %d)", p.GetRevision())
		}
		if dryRun == "server" {
			suffix += " (server dry run)"
		}
		fmt.Fprintf(w, "%s %s/%s %s%s\n", strings.ToLower(p.GetKind()), p.GetNamespace(), p.GetName(), p.GetOutcome(), suffix)
	}
	return nil
}

func policyGet() *cobra.Command {
	var namespace string
	command := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "List the policies in force", Args: cobra.MaximumNArgs(2), ValidArgsFunction: policyNames,
		Example: "  periplus policy get\n  periplus policy get virtualservice catalog -n shop -o yaml",
	}
	output := outputFlag(command)
	command.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default: all)")
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		args = append(args, "", "")
		response, err := client.Policies.GetPolicies(c.Context(), connect.NewRequest(&pb.GetPoliciesRequest{Kind: args[0], Namespace: namespace, Name: args[1]}))
		if err != nil {
			return err
		}
		items := response.Msg.GetItems()
		if args[1] != "" && len(items) == 0 {
			return cli.Exit(cli.ExitData, fmt.Errorf("%s %q not found", args[0], args[1]))
		}
		if args[1] != "" && *output == "yaml" { // one policy by name: the document as it was given
			for _, p := range items {
				fmt.Fprintf(c.OutOrStdout(), "%s\n", strings.TrimRight(string(p.GetSource()), "\n"))
			}
			return nil
		}
		return printPolicies(c.OutOrStdout(), *output, items)
	}
	return command
}

func printPolicies(w io.Writer, output string, items []*pb.Policy) error {
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
	return list.Print(w, output)
}

func short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

func policyDelete() *cobra.Command {
	var namespace string
	command := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete a policy", Args: cobra.ExactArgs(2), ValidArgsFunction: policyNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			response, err := client.Policies.DeletePolicy(c.Context(), connect.NewRequest(&pb.DeletePolicyRequest{Kind: args[0], Namespace: namespace, Name: args[1]}))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s/%s deleted (revision %d)\n", strings.ToLower(args[0]), namespace, args[1], response.Msg.GetRevision())
			return nil
		},
	}
	command.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the policy")
	return command
}

func policyHistory() *cobra.Command {
	var namespace string
	var limit uint32
	command := &cobra.Command{
		Use: "history [KIND [NAME]]", Short: "Show who changed what, newest first", Args: cobra.MaximumNArgs(2), ValidArgsFunction: policyNames,
	}
	output := outputFlag(command)
	command.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default: all)")
	command.Flags().Uint32Var(&limit, "limit", 100, "most entries to show, at most 500")
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		args = append(args, "", "")
		response, err := client.Policies.PolicyHistory(c.Context(), connect.NewRequest(&pb.PolicyHistoryRequest{
			Kind: args[0], Namespace: namespace, Name: args[1], Limit: limit,
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
		return list.Print(c.OutOrStdout(), *output)
	}
	return command
}

// policyNames completes kinds, then names in force.
func policyNames(c *cobra.Command, args []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) == 0 {
		return policyKinds, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := connectTo(c)
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	response, err := client.Policies.GetPolicies(c.Context(), connect.NewRequest(&pb.GetPoliciesRequest{Kind: args[0]}))
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
