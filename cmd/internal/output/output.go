package output

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
)

// ListFlag adds -o with the formats of lists ([cli.Formats]).
func ListFlag(command *cobra.Command) *string { return Flag(command, cli.Formats()...) }

// Flag adds -o with certain formats, of which the first is the default.
func Flag(command *cobra.Command, formats ...string) *string {
	v := &value{formats: formats, chosen: formats[0]}
	command.Flags().VarP(v, "output", "o", "how to print: "+strings.Join(formats, ", "))
	command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return &v.chosen
}

// value is a pflag.Value.
type value struct {
	formats []string
	chosen  string
}

func (v *value) String() string { return v.chosen }
func (v *value) Type() string   { return "string" }

func (v *value) Set(text string) error {
	if !slices.Contains(v.formats, text) {
		return fmt.Errorf("want one of %s", strings.Join(v.formats, ", "))
	}
	v.chosen = text
	return nil
}
