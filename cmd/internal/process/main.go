package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
)

// Main runs a program's command until it ends or the program is told to, and exits with the code that its error means.
// An interrupt (Ctrl-C), a SIGTERM or the end of its terminal (SIGHUP, unless nohup has it ignored) is told to the
// command by its context; a second interrupt ends the program at once.
func Main(command *cobra.Command) {
	ctx, stop := untilToldToEnd(context.Background())
	err := Usage(command).ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled) {
		err = cli.Exit(cli.ExitInterrupted, errors.New("interrupted"))
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error: "+cli.PrintableLines(cli.Message(err)))
	}
	os.Exit(cli.Code(err))
}

func untilToldToEnd(parent context.Context) (context.Context, context.CancelFunc) {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // Notify would undo it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(parent, ends...)
	// Who asks twice does not want to wait. Not so for SIGTERM: timeout(1) and others send it to a process and to its
	// group, so that it arrives twice at once.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	return ctx, stop
}

// Usage prepares a command and those below it: wrong flags and arguments, and required ones that are missing, get the
// exit code for it, and a noun without a verb prints its help. Errors are Main's to print. It returns command.
func Usage(command *cobra.Command) *cobra.Command {
	command.SilenceUsage, command.SilenceErrors = true, true
	command.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return misused(c, err) })
	command.InitDefaultHelpCmd() // cobra adds them when the command runs, unless they are there
	command.InitDefaultCompletionCmd()
	prepare(command)
	return command
}

func prepare(command *cobra.Command) {
	for _, c := range command.Commands() {
		prepare(c)
	}
	if command.HasSubCommands() && !command.Runnable() {
		command.Args = nounAlone
		command.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		return
	}
	if check := command.Args; check != nil {
		command.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
			}
			if err := c.ValidateRequiredFlags(); err != nil {
				return misused(c, err)
			}
			if err := c.ValidateFlagGroups(); err != nil {
				return misused(c, err)
			}
			return nil
		}
	}
}

// nounAlone refuses verbs that a noun does not have.
func nounAlone(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
	c.SuggestionsMinimumDistance = 2
	for _, near := range c.SuggestionsFor(args[0]) {
		text += fmt.Sprintf("\ndid you mean '%s %s'?", c.CommandPath(), near)
	}
	return cli.Exit(cli.ExitUsage, fmt.Errorf("%s\nSee '%s --help'.", text, c.CommandPath()))
}

func misused(c *cobra.Command, err error) error {
	return cli.Exit(cli.ExitUsage, fmt.Errorf("%w\nSee '%s --help'.", err, c.CommandPath()))
}
