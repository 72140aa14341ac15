package process

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
)

// Main runs a program's command until it ends or the program is told to, and exits with the code that its error means.
func Main(command *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Usage(command).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error: "+cli.PrintableLines(cli.Message(err)))
	}
	os.Exit(cli.Code(err))
}

// Usage prepares a command and those below it: wrong flags and arguments, and required ones that are missing, get the
// exit code for it, and a noun without a verb prints its help. Errors are Main's to print. It returns command.
func Usage(command *cobra.Command) *cobra.Command {
	command.SilenceUsage, command.SilenceErrors = true, true
	command.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return misused(c, err) })
	prepare(command)
	return command
}

func prepare(command *cobra.Command) {
	for _, c := range command.Commands() {
		prepare(c)
	}
	if check := command.Args; check != nil {
		command.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
			}
			if err := c.ValidateRequiredFlags(); err != nil {
				return misused(c, err)
			}
			return nil
		}
	}
	if command.RunE == nil && command.HasSubCommands() && command.HasParent() {
		command.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()))
			}
			return c.Help()
		}
	}
}

func misused(c *cobra.Command, err error) error {
	return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nSee '%s --help'.", err, c.CommandPath()))
}
