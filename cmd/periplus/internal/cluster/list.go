package cluster

import (
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func list() *cobra.Command {
	command := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the clusters", Args: cobra.NoArgs}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		response, err := client.Clusters.ListClusters(c.Context(), connect.NewRequest(&pb.ListClustersRequest{}))
		if err != nil {
			return err
		}
		return printClusters(c.OutOrStdout(), *format, response.Msg.GetItems())
	}
	return command
}

func printClusters(w io.Writer, format string, items []*pb.ClusterStatus) error {
	list := cli.List{Kind: "Cluster", Columns: []cli.Column{
		{Title: "NAME"}, {Title: "REGION"}, {Title: "STATUS"}, {Title: "LEASE"}, {Title: "SERVICES"}, {Title: "ENDPOINTS"}, {Title: "GATEWAYS"}, {Title: "BUNDLE"},
		{Title: "TRUST-DOMAIN", Wide: true}, {Title: "NETWORKS", Wide: true}, {Title: "PROXIES", Wide: true}, {Title: "CREDENTIAL", Wide: true}, {Title: "VERSION", Wide: true},
	}}
	for _, s := range items {
		list.Rows = append(list.Rows, cli.Row{Name: s.GetCluster().GetId(), Item: s, Cells: []string{
			s.GetCluster().GetId(), s.GetCluster().GetRegion(), s.GetStatus(), operator.Age(s.GetLeaseAgeMs()),
			fmt.Sprintf("%d (%d exported)", s.GetServices(), s.GetExportedServices()),
			fmt.Sprintf("%d/%d", s.GetHealthyEndpoints(), s.GetEndpoints()), fmt.Sprint(s.GetGateways()), fmt.Sprint(s.GetBundleSequence()),
			s.GetCluster().GetTrustDomain(), networkNames(s.GetCluster()), fmt.Sprint(s.GetProxies()), operator.Until(s.GetCredentialExpiresAtMs()), s.GetAgentVersion(),
		}})
	}
	return list.Print(w, format)
}

func networkNames(c *pb.Cluster) string {
	var names []string
	for _, n := range c.GetNetworks() {
		names = append(names, n.GetName()+"="+strings.Join(n.GetCidrs(), ","))
	}
	return strings.Join(names, ";")
}

func describeCommand() *cobra.Command {
	command := &cobra.Command{Use: "describe NAME", Short: "Show one cluster in full", Args: cobra.ExactArgs(1), ValidArgsFunction: operator.ClusterNames}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		response, err := client.Clusters.ListClusters(c.Context(), connect.NewRequest(&pb.ListClustersRequest{Id: args[0]}))
		if err != nil {
			return err
		}
		if *format != "table" {
			return printClusters(c.OutOrStdout(), *format, response.Msg.GetItems())
		}
		for _, s := range response.Msg.GetItems() {
			describe(c.OutOrStdout(), s)
		}
		return nil
	}
	return command
}

func describe(w io.Writer, s *pb.ClusterStatus) {
	field := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-14s %s\n", name+":", cli.Printable(fmt.Sprintf(format, args...)))
	}
	field("Name", "%s", s.GetCluster().GetId())
	field("Region", "%s", s.GetCluster().GetRegion())
	field("Trust domain", "%s", s.GetCluster().GetTrustDomain())
	for _, n := range s.GetCluster().GetNetworks() {
		field("Network", "%s (%s)", n.GetName(), strings.Join(n.GetCidrs(), ", "))
	}
	if namespaces := s.GetCluster().GetNamespaces(); len(namespaces) > 0 {
		field("Namespaces", "%s", strings.Join(namespaces, ", "))
	}
	field("Registered", "%s", time.UnixMilli(s.GetCluster().GetRegisteredAtMs()).Format(time.RFC3339))
	field("Status", "%s", s.GetStatus())
	if s.GetLeaseAgeMs() < 0 {
		field("Agent", "never heard")
	} else {
		field("Agent", "version %s, heard %s ago", s.GetAgentVersion(), operator.Age(s.GetLeaseAgeMs()))
	}
	if s.GetCredentialExpiresAtMs() > 0 {
		field("Credential", "generation %d, ends in %s", s.GetCluster().GetCredentialGeneration(), operator.Until(s.GetCredentialExpiresAtMs()))
	}
	field("Services", "%d, of which %d exported", s.GetServices(), s.GetExportedServices())
	field("Endpoints", "%d, of which %d healthy", s.GetEndpoints(), s.GetHealthyEndpoints())
	field("Gateways", "%d", s.GetGateways())
	field("Proxies", "%d", s.GetProxies())
	field("Bundle", "sequence %d", s.GetBundleSequence())
}
