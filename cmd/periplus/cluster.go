package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func clusterCommand() *cobra.Command {
	command := &cobra.Command{Use: "cluster", Aliases: []string{"clusters"}, Short: "Register clusters and steer them"}
	command.AddCommand(
		clusterRegister(), clusterList(), clusterDescribe(), clusterRotate(), clusterRemove(),
		clusterState("drain", "Take a cluster's endpoints out of every assignment", pb.ClusterState_CLUSTER_STATE_DRAINED),
		clusterState("undrain", "Let a drained cluster take traffic again", pb.ClusterState_CLUSTER_STATE_ACTIVE),
	)
	return command
}

func clusterRegister() *cobra.Command {
	var region, domain, file string
	var networks, namespaces []string
	var ttl time.Duration
	var dryRun bool
	var manifests manifestFlags
	command := &cobra.Command{
		Use:   "register NAME",
		Short: "Register a cluster: prints the single-use token with which its agent joins",
		Long: `Registers a cluster and prints a join token for its agent. The token works once, for this name and trust domain
only, and at most 15 minutes. Running it again makes another token; the registration stays as it is.

With --kubernetes -o yaml it prints, in place of the token, what starts the agent in a Kubernetes cluster; the token
is in its Secret.`,
		Example: `  periplus cluster register eu-1 --region eu-west --network eu-1=10.1.0.0/16 --trust-domain eu-1.example.org
  periplus cluster register eu-1 --region eu-west --network eu-1=10.1.0.0/16 --trust-domain eu-1.example.org --token-file eu-1.token
  periplus cluster register eu-1 --region eu-west --network eu-1=10.1.0.0/16 --trust-domain eu-1.example.org \
    --kubernetes --image registry.example.org/periplus-agent:1.0 --crds -o yaml | kubectl apply -f -`,
		Args: cobra.ExactArgs(1),
	}
	output := outputFlag(command)
	flags := command.Flags()
	flags.StringVar(&region, "region", "", "region that the cluster is in (required)")
	flags.StringArrayVar(&networks, "network", nil, "network of the cluster and the addresses its endpoints may have, NAME=CIDR[,CIDR...] (required, repeatable)")
	flags.StringVar(&domain, "trust-domain", "", "SPIFFE trust domain of the cluster (required)")
	flags.StringSliceVar(&namespaces, "namespace", nil, "namespaces the cluster may publish services in (default: all)")
	flags.DurationVar(&ttl, "token-ttl", 15*time.Minute, "lifetime of the token, at most 15m")
	flags.StringVar(&file, "token-file", "", "write the token to this file, readable by its owner only, instead of printing it")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be registered and change nothing")
	manifests.flags(command)
	for _, name := range []string{"region", "network", "trust-domain"} {
		command.MarkFlagRequired(name)
	}
	command.RunE = func(c *cobra.Command, args []string) error {
		if err := manifests.check(c, *output, args[0], file); err != nil {
			return err
		}
		cluster := &pb.Cluster{Id: args[0], Region: region, TrustDomain: domain, Namespaces: namespaces, State: pb.ClusterState_CLUSTER_STATE_ACTIVE}
		for _, network := range networks {
			name, cidrs, ok := strings.Cut(network, "=")
			if !ok || cidrs == "" {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("--network %q: want NAME=CIDR[,CIDR...]: endpoints outside the CIDRs are refused", network))
			}
			cluster.Networks = append(cluster.Networks, &pb.Network{Name: name, Cidrs: strings.Split(cidrs, ",")})
		}
		if dryRun && manifests.on {
			return manifests.write(c, args[0], "none: this was a dry run")
		}
		if dryRun {
			return printClusters(c.OutOrStdout(), *output, []*pb.ClusterStatus{{Cluster: cluster, Status: "NotRegistered", LeaseAgeMs: -1}})
		}
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		response, err := client.Clusters.RegisterCluster(c.Context(), connect.NewRequest(&pb.RegisterClusterRequest{
			Cluster: cluster, TokenTtlSeconds: uint32(ttl.Seconds()),
		}))
		if err != nil {
			return err
		}
		if manifests.on {
			return manifests.write(c, args[0], response.Msg.GetToken())
		}
		return printToken(c, *output, file, response.Msg)
	}
	return command
}

func printToken(c *cobra.Command, output, file string, r *pb.RegisterClusterResponse) error {
	if file != "" {
		if err := os.WriteFile(file, []byte(r.GetToken()+"\n"), 0o600); err != nil {
			return fmt.Errorf("token file: %w", err)
		}
		if path, err := filepath.Abs(file); err == nil {
			file = path
		}
	}
	if output == "json" || output == "yaml" {
		return cli.Document(c.OutOrStdout(), output, map[string]any{
			"apiVersion": "periplus.io/v1", "kind": "JoinToken", "cluster": r.GetCluster().GetId(), "token": r.GetToken(),
			"expiresAt": time.UnixMilli(r.GetExpiresAtMs()).UTC().Format(time.RFC3339),
		})
	}
	expires := time.UnixMilli(r.GetExpiresAtMs())
	fmt.Fprintf(c.ErrOrStderr(), "Cluster %q is registered. The token below works once, until %s.\nOn the cluster, start its agent:\n\n",
		r.GetCluster().GetId(), expires.Format("15:04:05 MST"))
	name := file
	if name == "" {
		name = r.GetCluster().GetId() + ".token"
	}
	fmt.Fprintf(c.ErrOrStderr(), "  periplus agent --join-token-file %s --data-dir /var/lib/periplus/agent --address ADDRESS:15012 \\\n"+
		"    --workload-socket unix:///run/spire/agent/api.sock --server-socket unix:///run/spire/server/api.sock\n\n", name)
	if file == "" {
		fmt.Fprintln(c.OutOrStdout(), r.GetToken())
	}
	return nil
}

func clusterList() *cobra.Command {
	command := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the clusters", Args: cobra.NoArgs}
	output := outputFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		response, err := client.Clusters.ListClusters(c.Context(), connect.NewRequest(&pb.ListClustersRequest{}))
		if err != nil {
			return err
		}
		return printClusters(c.OutOrStdout(), *output, response.Msg.GetItems())
	}
	return command
}

func printClusters(w io.Writer, output string, items []*pb.ClusterStatus) error {
	list := cli.List{Kind: "Cluster", Columns: []cli.Column{
		{Title: "NAME"}, {Title: "REGION"}, {Title: "STATUS"}, {Title: "LEASE"}, {Title: "SERVICES"}, {Title: "ENDPOINTS"}, {Title: "GATEWAYS"}, {Title: "BUNDLE"},
		{Title: "TRUST-DOMAIN", Wide: true}, {Title: "NETWORKS", Wide: true}, {Title: "PROXIES", Wide: true}, {Title: "CREDENTIAL", Wide: true}, {Title: "VERSION", Wide: true},
	}}
	for _, s := range items {
		list.Rows = append(list.Rows, cli.Row{Name: s.GetCluster().GetId(), Item: s, Cells: []string{
			s.GetCluster().GetId(), s.GetCluster().GetRegion(), s.GetStatus(), age(s.GetLeaseAgeMs()),
			fmt.Sprintf("%d (%d exported)", s.GetServices(), s.GetExportedServices()),
			fmt.Sprintf("%d/%d", s.GetHealthyEndpoints(), s.GetEndpoints()), fmt.Sprint(s.GetGateways()), fmt.Sprint(s.GetBundleSequence()),
			s.GetCluster().GetTrustDomain(), networkNames(s.GetCluster()), fmt.Sprint(s.GetProxies()), until(s.GetCredentialExpiresAtMs()), s.GetAgentVersion(),
		}})
	}
	return list.Print(w, output)
}

func age(millis int64) string { return cli.Age(time.Duration(millis) * time.Millisecond) }

func until(millis int64) string {
	if millis == 0 {
		return "<none>"
	}
	return cli.Age(time.Until(time.UnixMilli(millis)))
}

func networkNames(c *pb.Cluster) string {
	var names []string
	for _, n := range c.GetNetworks() {
		names = append(names, n.GetName()+"="+strings.Join(n.GetCidrs(), ","))
	}
	return strings.Join(names, ";")
}

func clusterDescribe() *cobra.Command {
	command := &cobra.Command{Use: "describe NAME", Short: "Show one cluster in full", Args: cobra.ExactArgs(1), ValidArgsFunction: clusterNames}
	output := outputFlag(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		response, err := client.Clusters.ListClusters(c.Context(), connect.NewRequest(&pb.ListClustersRequest{Id: args[0]}))
		if err != nil {
			return err
		}
		if *output != "table" {
			return printClusters(c.OutOrStdout(), *output, response.Msg.GetItems())
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
	field("Agent", "version %s, heard %s ago, credential generation %d, ends in %s", s.GetAgentVersion(), age(s.GetLeaseAgeMs()),
		s.GetCluster().GetCredentialGeneration(), until(s.GetCredentialExpiresAtMs()))
	field("Services", "%d, of which %d exported", s.GetServices(), s.GetExportedServices())
	field("Endpoints", "%d, of which %d healthy", s.GetEndpoints(), s.GetHealthyEndpoints())
	field("Gateways", "%d", s.GetGateways())
	field("Proxies", "%d", s.GetProxies())
	field("Bundle", "sequence %d", s.GetBundleSequence())
}

func clusterState(verb, short string, state pb.ClusterState) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: clusterNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			if _, err := client.Clusters.SetClusterState(c.Context(), connect.NewRequest(&pb.SetClusterStateRequest{Id: args[0], State: state})); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "cluster/%s %sed\n", args[0], verb)
			return nil
		},
	}
}

func clusterRotate() *cobra.Command {
	var revoke bool
	command := &cobra.Command{
		Use: "rotate NAME", Short: "Make a cluster's agent fetch a new credential", Args: cobra.ExactArgs(1), ValidArgsFunction: clusterNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			response, err := client.Clusters.RotateCluster(c.Context(), connect.NewRequest(&pb.RotateClusterRequest{Id: args[0], Revoke: revoke}))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "cluster/%s rotated: credential generation %d\n", args[0], response.Msg.GetCluster().GetCredentialGeneration())
			return nil
		},
	}
	command.Flags().BoolVar(&revoke, "revoke", false, "refuse the old credential at once and end its sessions; the agent must then register again")
	return command
}

func clusterRemove() *cobra.Command {
	var force bool
	command := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a cluster and everything that it published", Args: cobra.ExactArgs(1), ValidArgsFunction: clusterNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			response, err := client.Clusters.RemoveCluster(c.Context(), connect.NewRequest(&pb.RemoveClusterRequest{Id: args[0], Force: force}))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "cluster/%s removed, with %d objects\n", args[0], response.Msg.GetRemovedObjects())
			return nil
		},
	}
	command.Flags().BoolVar(&force, "force", false, "remove it although its agent is connected")
	return command
}

// clusterNames completes with the clusters of the mesh.
func clusterNames(c *cobra.Command, args []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := connectTo(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	response, err := client.Clusters.ListClusters(c.Context(), connect.NewRequest(&pb.ListClustersRequest{}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, s := range response.Msg.GetItems() {
		if strings.HasPrefix(s.GetCluster().GetId(), prefix) {
			names = append(names, s.GetCluster().GetId()+"\t"+s.GetCluster().GetRegion())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
