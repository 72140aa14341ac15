package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/deploy/kubernetes"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// manifestFlags are the flags of 'cluster register' that make it print manifests.
type manifestFlags struct {
	on     bool
	values kubernetes.Values
}

func (m *manifestFlags) flags(command *cobra.Command) {
	flags := command.Flags()
	flags.BoolVar(&m.on, "kubernetes", false, "print, with -o yaml, the manifests of the agent for the cluster's kubectl, token included")
	flags.StringVar(&m.values.Image, "image", "", "image of periplus-agent (required with --kubernetes)")
	flags.StringVar(&m.values.WorkloadAPI, "workload-api", kubernetes.CSI, "how the agent's pod gets at the SPIFFE Workload API: csi (the SPIFFE CSI driver) or hostpath")
	flags.StringVar(&m.values.SocketPath, "workload-api-socket", "", "path of its socket: below the driver's folder (default: spire-agent.sock), or on the node (default: /run/spire/agent-sockets/spire-agent.sock)")
	flags.StringVar(&m.values.SPIREServer, "spire-server", "", "host:port of the SPIRE server's API, to federate the trust domain; '' for no federation")
	flags.BoolVar(&m.values.NetworkPolicy, "network-policy", false, "add a NetworkPolicy that lets only proxies reach the agent")
	flags.BoolVar(&m.values.CRDs, "crds", false, "add the definition of ServiceExport, for clusters that have none")
}

// check tells what is wrong before anything is registered.
func (m *manifestFlags) check(c *cobra.Command, format, cluster, tokenFile string) error {
	if !m.on {
		for _, name := range []string{"image", "workload-api", "workload-api-socket", "spire-server", "network-policy", "crds"} {
			if c.Flags().Changed(name) {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("--%s is for --kubernetes", name))
			}
		}
		return nil
	}
	if _, err := m.print(cluster, "not-yet"); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if tokenFile != "" {
		return cli.Exit(cli.ExitUsage, errors.New("--token-file: with --kubernetes the token is in the Secret"))
	}
	if format != "yaml" {
		return cli.Exit(cli.ExitUsage, fmt.Errorf("nothing was registered: to register the cluster and start its agent there, type: %s -o yaml | kubectl apply -f -", commandLine()))
	}
	return nil
}

func (m *manifestFlags) print(cluster, token string) ([]byte, error) {
	m.values.Cluster, m.values.Token = cluster, token
	return kubernetes.Manifests(m.values)
}

// write prints them to the command's output.
func (m *manifestFlags) write(c *cobra.Command, cluster, token string) error {
	data, err := m.print(cluster, token)
	if err == nil {
		_, err = c.OutOrStdout().Write(data)
	}
	return err
}

// commandLine is what was typed, without another -o.
func commandLine() string {
	words := []string{"periplus"}
	for i, word := range os.Args[1:] {
		if word == "-o" || word == "--output" || strings.HasPrefix(word, "-o=") || strings.HasPrefix(word, "--output=") || i > 0 && (os.Args[i] == "-o" || os.Args[i] == "--output") {
			continue
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}
