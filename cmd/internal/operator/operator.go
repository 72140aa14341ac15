package operator

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
)

const contextFlag = "context"

// ContextFlag adds --context to the root command, for all below it.
func ContextFlag(root *cobra.Command) {
	root.PersistentFlags().String(contextFlag, "", "the mesh to talk to, of those in the contexts file (or $"+cli.EnvContext+")")
	root.RegisterFlagCompletionFunc(contextFlag, func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return ContextNames(prefix)
	})
}

// Contexts are the contexts file and where it is. A file that cannot be read is [cli.ExitData].
func Contexts() (path string, _ *cli.Config, err error) {
	if path, err = cli.ConfigPath(); err != nil {
		return "", nil, err
	}
	config, err := cli.LoadConfig(path)
	if err != nil {
		return "", nil, cli.Exit(cli.ExitData, err)
	}
	return path, config, nil
}

// Connect makes a client of the mesh that --context and the contexts file say. Nothing is dialled yet.
func Connect(command *cobra.Command) (*cli.Client, error) {
	_, config, err := Contexts()
	if err != nil {
		return nil, err
	}
	name, _ := command.Flags().GetString(contextFlag)
	context, err := config.Pick(name)
	if err != nil {
		return nil, err
	}
	return context.Connect()
}

// Age prints milliseconds that have passed; negative: never.
func Age(millis int64) string { return cli.Age(time.Duration(millis) * time.Millisecond) }

// Until prints how far away a moment is, in milliseconds of Unix time; 0: there is none.
func Until(millis int64) string {
	if millis == 0 {
		return "<none>"
	}
	left := time.Until(time.UnixMilli(millis))
	if left < 0 {
		return "expired"
	}
	return cli.Age(left)
}
