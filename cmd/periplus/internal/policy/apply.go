package policy

import (
	"errors"
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

// maxBytes of policies go into a request; the API takes 1 MiB with all that is around them.
const maxBytes = 1_000_000

func apply() *cobra.Command {
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
	format := output.ListFlag(command)
	command.Flags().VarP(&once{text: &file}, "filename", "f", "file with the policies, '-' for standard input (required)")
	command.Flags().StringVar(&dryRun, "dry-run", "none", "none, or server: check everything and change nothing")
	command.Flags().Lookup("dry-run").NoOptDefVal = "server"
	command.MarkFlagRequired("filename")
	command.RunE = func(c *cobra.Command, _ []string) error {
		if dryRun != "none" && dryRun != "server" {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("--dry-run=%s: want none or server", dryRun))
		}
		documents, err := cli.ReadInput(file, c.InOrStdin())
		if err == nil && len(documents) > maxBytes {
			err = fmt.Errorf("%s: more than %d bytes, which is more than one change may have: divide it", file, maxBytes)
		}
		if err != nil {
			return cli.Exit(cli.ExitData, err)
		}
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		response, err := client.Policies.ApplyPolicy(c.Context(), connect.NewRequest(&pb.ApplyPolicyRequest{
			Documents: documents, File: file, DryRun: dryRun == "server",
		}))
		if err != nil {
			return err
		}
		return printApplied(c.OutOrStdout(), *format, dryRun, response.Msg.GetItems())
	}
	return command
}

func printApplied(w io.Writer, format, dryRun string, items []*pb.AppliedPolicy) error {
	if format != "table" && format != "wide" {
		list := cli.List{Kind: "AppliedPolicy"}
		for _, p := range items {
			list.Rows = append(list.Rows, cli.Row{Name: p.GetNamespace() + "/" + p.GetName(), Item: p})
		}
		return list.Print(w, format)
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

// once is a flag that may be given once: of two files the first would be left out, without a word.
type once struct {
	text *string
	set  bool
}

func (o *once) String() string { return "" }
func (o *once) Type() string   { return "string" }

func (o *once) Set(text string) error {
	if o.set {
		return errors.New("given twice; one file may hold several policies, with '---' between them")
	}
	*o.text, o.set = text, true
	return nil
}
