package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestListsForPeopleAndForPrograms(t *testing.T) {
	list := List{Kind: "Policy", Columns: []Column{{Title: "NAME"}, {Title: "MORE", Wide: true}}, Rows: []Row{
		{Name: "a", Cells: []string{"a", "b"}, Item: map[string]string{"name": "a"}},
		{Cells: []string{"", "of a"}}, // for people alone
	}}
	for format, want := range map[string]string{
		"table": "NAME\na\n\n", "wide": "NAME   MORE\na      b\n       of a\n", "name": "policy/a\n",
	} {
		var out strings.Builder
		if err := list.Print(&out, format); err != nil || out.String() != want {
			t.Errorf("%s: %v\n%q, want\n%q", format, err, out.String(), want)
		}
	}
	var out strings.Builder
	var document struct {
		APIVersion, Kind string
		Items            []map[string]string
	}
	if err := list.Print(&out, "json"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.String()), &document); err != nil || document.Kind != "PolicyList" || len(document.Items) != 1 || document.Items[0]["name"] != "a" {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestEmptyListsAreWords(t *testing.T) {
	for kind, want := range map[string]string{"Policy": "No policies found.\n", "TrustDomain": "No trust domains found.\n", "Cluster": "No clusters found.\n"} {
		var out strings.Builder
		if err := (List{Kind: kind}).Print(&out, "table"); err != nil || out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                   "plain",
		"\x1b[2Jcleared\u009b31m": "?[2Jcleared?31m",
		"one\ntwo":                "one?two",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := PrintableLines("a.yaml:3: spec: wrong\n\ta.yaml:4: \x1b]0;x\n"), "a.yaml:3: spec: wrong\n    a.yaml:4: ?]0;x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
