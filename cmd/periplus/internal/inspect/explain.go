package inspect

import (
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

// Explain says where a request goes, and why.
func Explain() *cobra.Command {
	var from, namespace, subset string
	var port uint32
	command := &cobra.Command{
		Use:   "explain --from CLUSTER[/ZONE] SERVICE",
		Short: "Say where a request would go from here, and why",
		Long: `Prints every endpoint that a client in CLUSTER/ZONE has for SERVICE, in order of preference, with its share of the
requests and the reason for its place; and every endpoint that it does not get, with the reason for that. It is the
very function that the sidecars' endpoints are made with.`,
		Example: "  periplus explain --from eu-west/eu-west-a catalog.shop",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: operator.ServiceNames,
	}
	format := output.Flag(command, "table", "json", "yaml")
	command.Flags().StringVar(&from, "from", "", "where the client is, CLUSTER or CLUSTER/ZONE (required)")
	command.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the client (default: the service's)")
	command.Flags().StringVar(&subset, "subset", "", "subset of a DestinationRule")
	command.Flags().Uint32Var(&port, "port", 0, "port of the service (default: its first)")
	command.MarkFlagRequired("from")
	command.RegisterFlagCompletionFunc("from", operator.ClusterNames)
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		cluster, zone, _ := strings.Cut(from, "/")
		response, err := client.Mesh.Explain(c.Context(), connect.NewRequest(&pb.ExplainRequest{
			FromCluster: cluster, FromZone: zone, Service: args[0], Port: port, Subset: subset, FromNamespace: namespace,
		}))
		if err != nil {
			return err
		}
		if *format == "table" {
			printExplanation(c.OutOrStdout(), response.Msg)
			return nil
		}
		list := cli.List{Kind: "Explanation", Rows: []cli.Row{{Name: args[0], Item: response.Msg}}}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}

func printExplanation(w io.Writer, r *pb.ExplainResponse) {
	fmt.Fprintf(w, "From %s to %s port %d, at revision %d:\n", r.GetFrom(), r.GetService(), r.GetPort(), r.GetRevision())
	for _, rule := range r.GetRules() {
		fmt.Fprintf(w, "  rule: %s\n", cli.Printable(rule))
	}
	for _, level := range r.GetLevels() {
		fmt.Fprintf(w, "\nPriority %d gets %.1f%% of the requests\n", level.GetPriority(), 100*level.GetShare())
		for _, e := range level.GetEndpoints() {
			fmt.Fprintf(w, "  %5.1f%%  %s\n", 100*e.GetShare(), endpointLine(e))
		}
	}
	if len(r.GetLevels()) == 0 {
		fmt.Fprintln(w, "\nNo endpoint: requests fail with 503.")
	}
	if len(r.GetDropped()) > 0 {
		fmt.Fprintln(w, "\nNot used")
	}
	for _, e := range r.GetDropped() {
		fmt.Fprintf(w, "          %s\n", endpointLine(e))
	}
}

func endpointLine(e *pb.ExplainedEndpoint) string {
	locality := strings.TrimRight(strings.Join([]string{e.GetLocality().GetRegion(), e.GetLocality().GetZone(), e.GetLocality().GetSubzone()}, "/"), "/")
	stands := ""
	if e.GetStandsFor() > 1 {
		stands = fmt.Sprintf(", for %d endpoints", e.GetStandsFor())
	}
	health := strings.ToLower(strings.TrimPrefix(e.GetHealth().String(), "HEALTH_"))
	return cli.Printable(fmt.Sprintf("%-28s %-22s %-10s %s weight %d, %s%s: %s",
		e.GetName(), e.GetAddress(), e.GetCluster(), locality, e.GetWeight(), health, stands, e.GetReason()))
}
