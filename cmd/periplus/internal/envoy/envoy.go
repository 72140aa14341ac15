package envoy

import "github.com/spf13/cobra"

// Command is "periplus envoy".
func Command() *cobra.Command {
	command := &cobra.Command{
		Use: "envoy", Short: "Run a stock Envoy as a sidecar or as an east-west gateway",
		Long: `An Envoy can take the place of the mesh's own sidecars and gateways. It takes its configuration from the cluster's
agent (or from a controller while the agent is gone) and its identity from SPIRE's agent:

  periplus envoy bootstrap --role sidecar --name catalog-1 ... > envoy.yaml
  envoy -c envoy.yaml

An Envoy cannot say to the agent that it is there. Either its cluster's source of endpoints does (Kubernetes, the
services file), or 'periplus envoy announce' beside it.`,
	}
	command.AddCommand(bootstrap(), announcement())
	return command
}
