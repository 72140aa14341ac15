package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, child := range c.Commands() {
		walk(child, visit)
	}
}

func TestEveryCommandSaysWhatItDoes(t *testing.T) {
	walk(root(), func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && !c.HasSubCommands() && c.Args == nil {
			t.Errorf("%s takes any arguments", c.CommandPath())
		}
	})
}

// What 'up' starts are commands and flags that exist.
func TestPlanSpeaksThisCommandLine(t *testing.T) {
	plan, err := up.NewPlan(up.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range plan.Processes {
		command, args, err := root().Find(process.Args)
		if err == nil {
			err = command.ParseFlags(args)
		}
		if err == nil {
			err = command.ValidateRequiredFlags()
		}
		if err != nil || command.Flags().NArg() > 0 {
			t.Errorf("%s: %v: %v", process.Name, process.Args, err)
		}
	}
}

func TestWrongUsageExits64(t *testing.T) {
	for _, args := range [][]string{
		{"cluster", "register"}, {"cluster", "fly"}, {"up", "--nonsense"}, {"explain"}, {"up", "--clusters", "99"},
		{"cluster", "register", "x", "--region", "r", "--network", "no-cidr", "--trust-domain", "x.mesh"},
		{"policy", "apply", "-f", "-", "--dry-run=client"}, {"cluster", "register", "x"},
		{"proxy", "--name", "n", "--cluster", "c", "--network", "n", "--agent", "a", "--bind", "nowhere"},
	} {
		command := process.Usage(root())
		command.SetArgs(args)
		command.SetOut(io.Discard)
		command.SetErr(io.Discard)
		err := command.Execute()
		if got := cli.Code(err); got != cli.ExitUsage {
			t.Errorf("%v: exit code %d (%v), want %d", args, got, err, cli.ExitUsage)
		}
	}
}

func TestCodes(t *testing.T) {
	if cli.Code(nil) != 0 || cli.Code(errors.New("x")) != 1 || cli.Code(cli.Exit(75, errors.New("x"))) != 75 {
		t.Error("codes")
	}
}
