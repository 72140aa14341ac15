// Command periplus-proxy is the data plane alone: a sidecar, or an east-west gateway, with the flags that they have in
// cmd/periplus. It links neither client-go nor raft, so that it is small where it runs in thousands.
package main

import (
	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/dataplane"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
)

func main() { process.Main(root()) }

func root() *cobra.Command {
	command := &cobra.Command{
		Use: "periplus-proxy", Short: "The data plane of Periplus alone: a sidecar, or an east-west gateway",
		Version: process.Version(),
	}
	command.AddCommand(dataplane.Sidecar(), dataplane.EastWest())
	return command
}
