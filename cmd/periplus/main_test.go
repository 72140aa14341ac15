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
		{"nonsense"}, {"completion", "nonsense"}, {"up", "nonsense"}, {"up", "--rate", "0"}, {"up", "--svid-ttl", "soon"}, {"policies", "aply"},
		{"policy", "apply", "-f", "a.yaml", "-f", "b.yaml"}, {"envoy", "bootstrap", "--delta", "--sotw"},
		{"cluster", "register", "x", "--region", "r", "--network", "n=10.0.0.0/8", "--trust-domain", "x.mesh", "--token-ttl", "1h"},
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

// A format that there is not is found before anything is done.
func TestUnknownFormatsAreRefusedAtOnce(t *testing.T) {
	seen := 0
	walk(root(), func(c *cobra.Command) {
		if c.Flags().Lookup("output") == nil {
			return
		}
		seen++
		if err := c.ParseFlags([]string{"-o", "xml"}); err == nil || !strings.Contains(err.Error(), "want one of") {
			t.Errorf("%s -o xml: %v", c.CommandPath(), err)
		}
	})
	if seen < 10 {
		t.Errorf("%d commands with -o: the test looks at nothing", seen)
	}
}

func TestMistypedCommandsGetASuggestion(t *testing.T) {
	for typed, want := range map[string]string{"clsuter": "'periplus cluster'", "cluster lst": "'periplus cluster list'"} {
		command := process.Usage(root())
		command.SetArgs(strings.Fields(typed))
		if err := command.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", typed, err)
		}
	}
}

func TestCodes(t *testing.T) {
	if cli.Code(nil) != 0 || cli.Code(errors.New("x")) != 1 || cli.Code(cli.Exit(75, errors.New("x"))) != 75 {
		t.Error("codes")
	}
}
