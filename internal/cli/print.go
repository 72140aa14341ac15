package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Formats are the values of --output.
var formats = []string{"table", "wide", "json", "yaml", "name"}

// Formats returns the values of --output.
func Formats() []string { return formats }

// Column of a table. Wide columns are shown with -o wide only.
type Column struct {
	Title string
	Wide  bool
}

// List is something to print: as rows for people, as items for programs.
type List struct {
	Kind    string // of the items, for json, yaml and name
	Columns []Column
	Rows    []Row
}

// Row is one item: its cells, its name, and what json and yaml show of it: a proto.Message or what encoding/json takes.
// A row without an item is for people alone.
type Row struct {
	Name  string
	Cells []string
	Item  any
}

// Print writes the list. json and yaml are a stable contract: apiVersion, kind List, items.
func (l List) Print(w io.Writer, format string) error {
	switch format {
	case "", "table":
		return l.table(w, false)
	case "wide":
		return l.table(w, true)
	case "name":
		for _, row := range l.Rows {
			if row.Name == "" {
				continue
			}
			fmt.Fprintf(w, "%s/%s\n", strings.ToLower(l.Kind), row.Name)
		}
		return nil
	case "json", "yaml":
		return l.document(w, format)
	}
	return Exit(ExitUsage, fmt.Errorf("--output %q: want one of %s", format, strings.Join(formats, ", ")))
}

func (l List) table(w io.Writer, wide bool) error {
	if len(l.Rows) == 0 {
		_, err := fmt.Fprintf(w, "No %s found.\n", plural(l.Kind))
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	l.line(t, wide, func(i int) string { return l.Columns[i].Title })
	for _, row := range l.Rows {
		l.line(t, wide, func(i int) string { return row.Cells[i] })
	}
	return t.Flush()
}

// plural makes words of a kind: TrustDomain is "trust domains", Policy is "policies".
func plural(kind string) string {
	var words strings.Builder
	for i, r := range kind {
		if i > 0 && unicode.IsUpper(r) {
			words.WriteByte(' ')
		}
		words.WriteRune(unicode.ToLower(r))
	}
	if stem, ok := strings.CutSuffix(words.String(), "y"); ok {
		return stem + "ies"
	}
	return words.String() + "s"
}

func (l List) line(w io.Writer, wide bool, cell func(int) string) {
	var cells []string
	for i, column := range l.Columns {
		if wide || !column.Wide {
			cells = append(cells, Printable(cell(i)))
		}
	}
	fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (l List) document(w io.Writer, format string) error {
	items := make([]json.RawMessage, 0, len(l.Rows))
	for _, row := range l.Rows {
		if row.Item == nil {
			continue
		}
		data, err := encode(row.Item)
		if err != nil {
			return fmt.Errorf("print %s: %w", row.Name, err)
		}
		items = append(items, data)
	}
	return Document(w, format, map[string]any{"apiVersion": "periplus.io/v1", "kind": l.Kind + "List", "items": items})
}

func encode(item any) ([]byte, error) {
	if message, ok := item.(proto.Message); ok {
		return protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(message)
	}
	return json.Marshal(item)
}

// Document writes v as json or yaml.
func Document(w io.Writer, format string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil && format == "yaml" {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, strings.TrimRight(string(data), "\n"))
	return err
}

// Printable replaces control characters: names come from other clusters, a terminal obeys what it prints.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// PrintableLines is Printable for messages of several lines; those after the first are indented, so that none of them
// looks like a message of its own.
func PrintableLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = Printable(strings.ReplaceAll(line, "\t", "  "))
	}
	return strings.Join(lines, "\n  ")
}

// Age is a duration as kubectl prints it: two units at most, "<none>" for none.
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "<none>"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
