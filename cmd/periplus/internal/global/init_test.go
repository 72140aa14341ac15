package global

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// A mistyped name leaves no root behind that would be in the way of the next try.
func TestWrongNamesMakeNothing(t *testing.T) {
	for _, names := range [][]string{
		{"--trust-domain", "Bad Domain", "--replica", "g-1"}, {"--trust-domain", "a.test", "--replica", "G 1"}, {"--trust-domain", "a.test", "--replica", "operators"},
		{"--trust-domain", "a.test", "--replica", "g-1", "--operator", "a/b"},
	} {
		dir := filepath.Join(t.TempDir(), "pki")
		command := process.Usage(Command())
		command.SetOut(io.Discard)
		command.SetArgs(append([]string{"init", "--dir", dir}, names...))
		if err := command.Execute(); cli.Code(err) != cli.ExitUsage {
			t.Errorf("%v: %v", names, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%v: %s is there", names, dir)
		}
	}
}

// What others are told is never an address that only means something here.
func TestAdvertised(t *testing.T) {
	for _, c := range []struct{ given, listen, peer, want string }{
		{"", "10.0.0.1:15012", "", "10.0.0.1:15012"}, {"g1.test:1", ":15012", "g1.test:2", "g1.test:1"}, {"", ":15012", "g1.test:2", "g1.test:2"},
		{"", ":15012", "", ""}, {"", "0.0.0.0:15012", "", ""}, {"", "[::]:15012", "", ""}, {"", "nowhere", "", ""}, {"", "g1.test:15012", "", "g1.test:15012"},
	} {
		got, err := advertised("mesh", c.given, c.listen, c.peer)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}
