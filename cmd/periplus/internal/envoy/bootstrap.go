package envoy

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func bootstrap() *cobra.Command {
	var f flags
	var delta, sotw bool
	var format *string
	command := &cobra.Command{
		Use: "bootstrap", Short: "Print the configuration file of an Envoy", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := f.client()
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			client.Delta = !sotw
			data, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: "  "}.Marshal(client.Bootstrap())
			if err == nil && *format == "yaml" {
				data, err = yaml.JSONToYAML(data)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), strings.TrimRight(string(data), "\n"))
			return err
		},
	}
	f.add(command)
	f.addBootstrap(command)
	command.Flags().BoolVar(&delta, "delta", false, "incremental xDS (the default)")
	command.Flags().BoolVar(&sotw, "sotw", false, "state-of-the-world xDS")
	command.MarkFlagsMutuallyExclusive("delta", "sotw")
	format = output.Flag(command, "yaml", "json")
	return command
}
