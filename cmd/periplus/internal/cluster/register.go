package cluster

import (
	"cmp"
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
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// maxTokenTTL is the longest life of a token.
const maxTokenTTL = 15 * time.Minute

// registration is what the flags of 'register' say.
type registration struct {
	region, domain       string
	networks, namespaces []string
	ttl                  time.Duration
	file                 string
	dryRun               bool
	manifests            manifestFlags
}

func register() *cobra.Command {
	var r registration
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
	format := output.Flag(command, "table", "json", "yaml")
	flags := command.Flags()
	flags.StringVar(&r.region, "region", "", "region that the cluster is in (required)")
	flags.StringArrayVar(&r.networks, "network", nil, "network of the cluster and the addresses its endpoints may have, NAME=CIDR[,CIDR...] (required, repeatable)")
	flags.StringVar(&r.domain, "trust-domain", "", "SPIFFE trust domain of the cluster (required)")
	flags.StringSliceVar(&r.namespaces, "namespace", nil, "namespaces the cluster may publish services in (default: all)")
	flags.DurationVar(&r.ttl, "token-ttl", maxTokenTTL, "lifetime of the token, at most 15m")
	flags.StringVar(&r.file, "token-file", "", "write the token to this file, readable by its owner only, instead of printing it")
	flags.BoolVar(&r.dryRun, "dry-run", false, "check and print what would be registered, and change nothing")
	r.manifests.flags(command)
	for _, name := range []string{"region", "network", "trust-domain"} {
		command.MarkFlagRequired(name)
	}
	command.RunE = func(c *cobra.Command, args []string) error { return r.run(c, *format, args[0]) }
	return command
}

func (r *registration) run(c *cobra.Command, format, name string) error {
	if err := r.manifests.check(c, format, name, r.file); err != nil {
		return err
	}
	cluster, err := r.cluster(name)
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if r.dryRun && r.manifests.on {
		return r.manifests.write(c, name, "none: this was a dry run")
	}
	if r.dryRun {
		return printClusters(c.OutOrStdout(), format, []*pb.ClusterStatus{{Cluster: cluster, Status: "NotRegistered", LeaseAgeMs: -1}})
	}
	client, err := operator.Connect(c)
	if err != nil {
		return err
	}
	response, err := client.Clusters.RegisterCluster(c.Context(), connect.NewRequest(&pb.RegisterClusterRequest{
		Cluster: cluster, TokenTtlSeconds: uint32(r.ttl.Seconds()),
	}))
	if err != nil {
		return err
	}
	if r.manifests.on {
		return r.manifests.write(c, name, response.Msg.GetToken())
	}
	return printToken(c, format, r.file, response.Msg)
}

// cluster is what will be registered. What every controller would refuse is refused here, in a dry run too.
func (r *registration) cluster(name string) (*pb.Cluster, error) {
	out := &pb.Cluster{Id: name, Region: r.region, TrustDomain: r.domain, Namespaces: r.namespaces, State: pb.ClusterState_CLUSTER_STATE_ACTIVE}
	for _, network := range r.networks {
		name, cidrs, ok := strings.Cut(network, "=")
		if !ok || cidrs == "" {
			return nil, fmt.Errorf("--network %q: want NAME=CIDR[,CIDR...]: endpoints outside the CIDRs are refused", network)
		}
		out.Networks = append(out.Networks, &pb.Network{Name: name, Cidrs: strings.Split(cidrs, ",")})
	}
	if r.ttl < time.Second || r.ttl > maxTokenTTL {
		return nil, fmt.Errorf("--token-ttl %v: want 1s to %v", r.ttl, maxTokenTTL)
	}
	cluster, err := meshpb.DecodeCluster(out)
	if err == nil {
		err = cluster.Validate()
	}
	return out, err
}

// printToken prints the token, or writes it to a file and says so.
func printToken(c *cobra.Command, format, file string, r *pb.RegisterClusterResponse) error {
	name, expires := r.GetCluster().GetId(), time.UnixMilli(r.GetExpiresAtMs())
	if file != "" {
		if err := os.WriteFile(file, []byte(r.GetToken()+"\n"), 0o600); err != nil {
			return fmt.Errorf("the cluster is registered, its token is lost (run the command again for another): %w", err)
		}
		if path, err := filepath.Abs(file); err == nil {
			file = path
		}
	}
	if format != "table" {
		document := map[string]any{"apiVersion": "periplus.io/v1", "kind": "JoinToken", "cluster": name, "expiresAt": expires.UTC().Format(time.RFC3339)}
		if document["token"] = r.GetToken(); file != "" {
			delete(document, "token")
			document["tokenFile"] = file
		}
		return cli.Document(c.OutOrStdout(), format, document)
	}
	where := "is in the file"
	if file == "" {
		where = "is below, to be kept in a file"
	}
	fmt.Fprintf(c.ErrOrStderr(), "Cluster %q is registered. Its token %s. It works once, until %s.\nOn the cluster, start its agent:\n\n"+
		"  periplus agent --join-token-file %s --data-dir /var/lib/periplus/agent --address ADDRESS:15012 \\\n"+
		"    --workload-socket unix:///run/spire/agent/api.sock --server-socket unix:///run/spire/server/api.sock\n\n",
		name, where, expires.Format("15:04:05 MST"), cmp.Or(file, name+".token"))
	if file == "" {
		fmt.Fprintln(c.OutOrStdout(), r.GetToken())
	}
	return nil
}
