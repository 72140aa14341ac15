package inspect

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

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
			if zone != "" && !hasZone(response.Msg, cluster, zone) {
				fmt.Fprintf(c.ErrOrStderr(), "Note: %s has no endpoint in zone %q of cluster %q; is the zone's name right?\n", args[0], zone, cluster)
			}
			printExplanation(c.OutOrStdout(), response.Msg)
			return nil
		}
		list := cli.List{Kind: "Explanation", Rows: []cli.Row{{Name: args[0], Item: response.Msg}}}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}

// hasZone tells whether the service has an endpoint there. No zone is wrong for a client, but a name may be mistyped.
func hasZone(r *pb.ExplainResponse, cluster, zone string) bool {
	there := func(e *pb.ExplainedEndpoint) bool {
		return e.GetCluster() == cluster && e.GetLocality().GetZone() == zone
	}
	return slices.ContainsFunc(r.GetDropped(), there) || slices.ContainsFunc(r.GetLevels(), func(l *pb.ExplainedLevel) bool {
		return slices.ContainsFunc(l.GetEndpoints(), there)
	})
}

func printExplanation(w io.Writer, r *pb.ExplainResponse) {
	fmt.Fprintf(w, "From %s to %s port %d, at revision %d\n", cli.Printable(r.GetFrom()), cli.Printable(r.GetService()), r.GetPort(), r.GetRevision())
	for _, rule := range r.GetRules() {
		fmt.Fprintf(w, "  rule: %s\n", cli.Printable(rule))
	}
	var all []*pb.ExplainedEndpoint
	for _, level := range r.GetLevels() {
		all = append(all, level.GetEndpoints()...)
	}
	widths := widthsOf(append(all, r.GetDropped()...))
	for _, level := range r.GetLevels() {
		fmt.Fprintf(w, "\nPriority %d %s\n", level.GetPriority(), share(level))
		for _, e := range level.GetEndpoints() {
			fmt.Fprintf(w, "  %5.1f%%  %s\n", 100*e.GetShare(), widths.line(e))
		}
	}
	if len(r.GetLevels()) == 0 {
		fmt.Fprintln(w, "\nNo endpoint: requests fail with 503.")
	}
	if len(r.GetDropped()) > 0 {
		fmt.Fprintln(w, "\nNot used")
	}
	for _, e := range r.GetDropped() {
		fmt.Fprintf(w, "       -  %s\n", widths.line(e))
	}
}

func share(level *pb.ExplainedLevel) string {
	healthy := func(e *pb.ExplainedEndpoint) bool { return e.GetHealth() == pb.Health_HEALTH_HEALTHY }
	switch {
	case level.GetShare() == 0 && !slices.ContainsFunc(level.GetEndpoints(), healthy):
		return "gets nothing: none of its endpoints is healthy"
	case level.GetShare() == 0:
		return "stands by: it gets requests as those before it lose healthy endpoints"
	}
	return fmt.Sprintf("gets %.1f%% of the requests", 100*level.GetShare())
}

// columns are what is known of an endpoint, but for why it stands where it stands.
func columns(e *pb.ExplainedEndpoint) []string {
	l := e.GetLocality()
	locality := strings.TrimRight(strings.Join([]string{l.GetRegion(), l.GetZone(), l.GetSubzone()}, "/"), "/")
	health := strings.ToLower(strings.TrimPrefix(e.GetHealth().String(), "HEALTH_"))
	return []string{e.GetName(), e.GetAddress(), e.GetCluster(), locality, fmt.Sprintf("weight %d", e.GetWeight()), health}
}

// widths are the greatest of each column, so that all levels are one table.
type widths [6]int

func widthsOf(endpoints []*pb.ExplainedEndpoint) (out widths) {
	for _, e := range endpoints {
		for i, text := range columns(e) {
			out[i] = max(out[i], utf8.RuneCountInString(text))
		}
	}
	return out
}

func (w widths) line(e *pb.ExplainedEndpoint) string {
	var b strings.Builder
	for i, text := range columns(e) {
		fmt.Fprintf(&b, "%-*s  ", w[i], text)
	}
	return cli.Printable(b.String() + e.GetReason())
}
