package cli

import "testing"

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
