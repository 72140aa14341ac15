package grpc

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/trust"
)

// Command is "periplus grpc".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "grpc", Short: "Connect gRPC clients without a sidecar"}
	command.AddCommand(bootstrap())
	return command
}

// client is what a gRPC client's bootstrap depends on.
type client struct {
	cluster, name, service, network string
	region, zone, subzone           string
	certs                           string
	agents, controllers             []string
	gateways                        bool
}

func bootstrap() *cobra.Command {
	var client client
	command := &cobra.Command{
		Use: "bootstrap", Short: "Print the file that GRPC_XDS_BOOTSTRAP names", Args: cobra.NoArgs,
		Long: `Prints the bootstrap of a gRPC client that follows the mesh by itself: its targets are xds:///SERVICE.NAMESPACE[:PORT].
The client asks the agent first and the controllers when it has to; both are verified by host name, so the agent's
registration entry needs a DNS name. --certs is where 'periplus svid fetch --write DIR --watch' keeps the identity.

The client's environment decides how far it gets:
  GRPC_XDS_BOOTSTRAP=FILE                   this output
  GRPC_EXPERIMENTAL_XDS_MTLS_SPIFFE=true    services of other trust domains, each verified with its own roots (gRFC A87)
  GRPC_EXPERIMENTAL_XDS_SNI=true            services behind east-west gateways; say so with --gateways (gRFC A101)`,
		Example: `  periplus grpc bootstrap --cluster eu-west --name checkout-1 --agent agent.eu-west:15012 --certs /run/svid > bootstrap.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			bootstrap, err := client.bootstrap()
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			encoder := json.NewEncoder(c.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(bootstrap)
		},
	}
	flags := command.Flags()
	flags.StringVar(&client.cluster, "cluster", "", "the client's cluster (required)")
	flags.StringVar(&client.name, "name", "", "the client's name, unique in the cluster (required)")
	flags.StringVar(&client.service, "service", "", "NAME.NAMESPACE of the service that the client belongs to")
	flags.StringVar(&client.network, "network", "", "the client's network (default: the cluster's only one)")
	flags.StringVar(&client.region, "region", "", "the client's region (default: the cluster's)")
	flags.StringVar(&client.zone, "zone", "", "the client's zone")
	flags.StringVar(&client.subzone, "subzone", "", "the client's subzone")
	flags.StringArrayVar(&client.agents, "agent", nil, "host:port of the cluster's agent; none: controllers alone")
	flags.StringArrayVar(&client.controllers, "controller", nil, "host:port of a controller, to fall back to (repeatable)")
	flags.StringVar(&client.certs, "certs", "", "folder with the identity (required)")
	flags.BoolVar(&client.gateways, "gateways", false, "the client sends server names, so it can reach other networks through gateways")
	for _, name := range []string{"cluster", "name", "certs"} {
		command.MarkFlagRequired(name)
	}
	return command
}

// object is JSON whose shape is gRPC's to say (gRFC A27, A29, A65, A71, A87).
type object map[string]any

// refresh is how soon files that changed are seen. gRPC's own default, ten minutes, is longer than short SVIDs live.
const refresh = "5s"

func (g *client) bootstrap() (object, error) {
	if _, err := mesh.ParseClusterID(g.cluster); err != nil {
		return nil, fmt.Errorf("--cluster: %w", err)
	}
	dir, err := filepath.Abs(g.certs)
	if err != nil {
		return nil, err
	}
	var servers []object
	for _, address := range slices.Concat(g.agents, g.controllers) {
		if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
			return nil, fmt.Errorf("server %q: want HOST:PORT", address)
		}
		servers = append(servers, xdsServer(address, dir))
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("whom to ask? Give --agent, --controller or both")
	}
	workload := identityFiles(dir, trust.FileBundle)
	workload["spiffe_trust_bundle_map_file"] = filepath.Join(dir, trust.FileBundleMap)
	return object{
		"xds_servers":           servers,
		"certificate_providers": object{"default": object{"plugin_name": "file_watcher", "config": workload}},
		"node":                  g.node(),
	}, nil
}

// xdsServer is the agent or a controller. The credentials are the same for all: grpc-go keeps one configuration for
// each type of credentials, the last server's (internal/xds/xdsclient, populateGRPCTransportConfigsFromServerConfig).
func xdsServer(address, dir string) object {
	return object{
		"server_uri": address, "server_features": []string{"xds_v3"},
		"channel_creds": []object{{"type": "tls", "config": identityFiles(dir, trust.FileControl)}},
	}
}

func identityFiles(dir, roots string) object {
	return object{
		"certificate_file": filepath.Join(dir, trust.FileSVID), "private_key_file": filepath.Join(dir, trust.FileKey),
		"ca_certificate_file": filepath.Join(dir, roots), "refresh_interval": refresh,
	}
}

func (g *client) node() object {
	metadata := object{translate.ServerNameKey: g.gateways}
	if g.network != "" {
		metadata["NETWORK"] = g.network
	}
	node := object{"id": "grpc~" + g.cluster + "~" + g.name, "cluster": g.service, "metadata": metadata}
	if g.region != "" {
		node["locality"] = object{"region": g.region, "zone": g.zone, "sub_zone": g.subzone}
	}
	return node
}
