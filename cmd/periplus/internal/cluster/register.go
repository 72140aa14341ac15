package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func register() *cobra.Command {
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
	format := output.ListFlag(command)
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
		if err := manifests.check(c, *format, args[0], file); err != nil {
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
			return printClusters(c.OutOrStdout(), *format, []*pb.ClusterStatus{{Cluster: cluster, Status: "NotRegistered", LeaseAgeMs: -1}})
		}
		client, err := operator.Connect(c)
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
		return printToken(c, *format, file, response.Msg)
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
