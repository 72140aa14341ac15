package contexts

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Command is "periplus config".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "List and choose the meshes that commands talk to"}
	command.AddCommand(list(), current(), use(), remove())
	return command
}

func list() *cobra.Command {
	command := &cobra.Command{Use: "get-contexts", Short: "List the contexts", Args: cobra.NoArgs}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		_, config, err := operator.Contexts()
		if err != nil {
			return err
		}
		list := cli.List{Kind: "Context", Columns: []cli.Column{{Title: "CURRENT"}, {Title: "NAME"}, {Title: "SERVERS"}, {Title: "TRUST-DOMAIN", Wide: true}, {Title: "CERTIFICATE", Wide: true}}}
		for _, n := range config.Contexts {
			mark := ""
			if n.Name == config.CurrentContext {
				mark = "*"
			}
			list.Rows = append(list.Rows, cli.Row{Name: n.Name, Item: n, Cells: []string{
				mark, n.Name, strings.Join(n.Context.Servers, ","), n.Context.TrustDomain, n.Context.Certificate,
			}})
		}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}

func current() *cobra.Command {
	return &cobra.Command{
		Use: "current-context", Short: "Print the name of the context in use", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, config, err := operator.Contexts()
			if err != nil {
				return err
			}
			name, err := config.Current("")
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), name)
			}
			return err
		},
	}
}

func use() *cobra.Command {
	return &cobra.Command{
		Use: "use-context NAME", Short: "Choose the context", Args: cobra.ExactArgs(1), ValidArgsFunction: names,
		RunE: func(c *cobra.Command, args []string) error {
			path, config, err := operator.Contexts()
			if err != nil {
				return err
			}
			if _, err := config.Pick(args[0]); err != nil {
				return err
			}
			config.CurrentContext = args[0]
			if err := config.Save(path); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Commands talk to %q now.\n", args[0])
			return nil
		},
	}
}

func remove() *cobra.Command {
	return &cobra.Command{
		Use: "delete-context NAME", Short: "Forget a context; the mesh and the files that it names stay", Args: cobra.ExactArgs(1), ValidArgsFunction: names,
		RunE: func(c *cobra.Command, args []string) error {
			path, config, err := operator.Contexts()
			if err != nil {
				return err
			}
			if _, err := config.Pick(args[0]); err != nil {
				return err
			}
			config.Remove(args[0])
			if err := config.Save(path); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "context/%s deleted\n", args[0])
			return nil
		},
	}
}

// names completes the first argument with the contexts there are.
func names(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return operator.ContextNames(prefix)
}
