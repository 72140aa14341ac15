package contexts

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/operator"
)

// Command is "periplus config".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "List and choose the meshes that commands talk to"}
	command.AddCommand(&cobra.Command{
		Use: "get-contexts", Short: "List the contexts", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, config, err := operator.Contexts()
			if err != nil {
				return err
			}
			for _, n := range config.Contexts {
				mark := " "
				if n.Name == config.CurrentContext {
					mark = "*"
				}
				fmt.Fprintf(c.OutOrStdout(), "%s %-20s %s\n", mark, n.Name, strings.Join(n.Context.Servers, ","))
			}
			return nil
		},
	}, &cobra.Command{
		Use: "use-context NAME", Short: "Choose the context", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, config, err := operator.Contexts()
			if err != nil {
				return err
			}
			if _, err := config.Pick(args[0]); err != nil {
				return err
			}
			config.CurrentContext = args[0]
			return config.Save(path)
		},
	})
	return command
}
