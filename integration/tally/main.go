package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	verbose := flag.Bool("v", false, "print what tests that pass print, too")
	total := flag.Bool("total", false, "add up files that were kept")
	flag.Parse()
	ok, err := run(*verbose, *total, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(verbose, total bool, files []string) (ok bool, err error) {
	if total {
		return addUp(os.Stdout, files)
	}
	if len(files) != 1 {
		return false, fmt.Errorf("one file is needed to keep the counts in, got %d", len(files))
	}
	t := newTally(os.Stdout, verbose)
	readErr := t.read(os.Stdin)
	counts := t.counts()
	data, err := json.Marshal(counts)
	if err == nil {
		err = os.WriteFile(files[0], data, 0o644)
	}
	fmt.Println(counts)
	return counts.Failed == 0 && readErr == nil, err
}

func addUp(out io.Writer, files []string) (ok bool, err error) {
	var sum Counts
	for _, file := range files {
		var c Counts
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		if err != nil {
			c = Counts{Failed: 1, Failures: []string{err.Error()}}
		}
		sum.add(c)
	}
	fmt.Fprintln(out, sum)
	return sum.Failed == 0, nil
}

// Counts of tests.
type Counts struct {
	Passed, Failed, Skipped int
	Failures                []string // names
	Skips                   []string // names and reasons
}

func (c *Counts) add(o Counts) {
	c.Passed, c.Failed, c.Skipped = c.Passed+o.Passed, c.Failed+o.Failed, c.Skipped+o.Skipped
	c.Failures, c.Skips = append(c.Failures, o.Failures...), append(c.Skips, o.Skips...)
}

// String has the names first and the numbers in the last line.
func (c Counts) String() string {
	var b strings.Builder
	for _, name := range c.Failures {
		fmt.Fprintf(&b, "failed: %s\n", name)
	}
	for _, skip := range c.Skips {
		fmt.Fprintf(&b, "skipped: %s\n", skip)
	}
	fmt.Fprintf(&b, "%d passed, %d failed, %d skipped", c.Passed, c.Failed, c.Skipped)
	return b.String()
}

// event is one line of 'go test -json'; see 'go doc test2json'.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of build-output and build-fail
}

// key of a test, or of a package with no test.
type key struct{ pkg, test string }

type tally struct {
	out     io.Writer
	verbose bool
	open    map[string]bool  // packages that have begun and not ended
	parents map[key]bool     // tests that have subtests
	ended   map[key]string   // pass, fail or skip
	order   []key            // of ended
	printed map[key][]string // what each has printed and nobody has been shown
	skipped []string         // by a package's own words, before its tests began
}

func newTally(out io.Writer, verbose bool) *tally {
	return &tally{out: out, verbose: verbose, open: map[string]bool{}, parents: map[key]bool{}, ended: map[key]string{}, printed: map[key][]string{}}
}

// read takes in all events. A line that is none is printed as it is.
func (t *tally) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				t.out.Write(line)
			} else {
				t.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) take(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "start":
		t.open[e.Package] = true
	case "build-output":
		io.WriteString(t.out, e.Output)
	case "run":
		if parent := strings.LastIndexByte(e.Test, '/'); parent >= 0 {
			t.parents[key{e.Package, e.Test[:parent]}] = true
		}
	case "output":
		t.output(k, e.Output)
	case "pass", "fail", "skip":
		t.end(k, e.Action)
	}
}

func (t *tally) output(k key, text string) {
	if k.test == "" && strings.HasPrefix(text, "--- SKIP: ") {
		t.skipped = append(t.skipped, k.pkg+" "+strings.TrimSpace(strings.TrimPrefix(text, "--- SKIP: ")))
	}
	if t.verbose || k.test == "" && text != "PASS\n" {
		io.WriteString(t.out, text)
	}
	t.printed[k] = append(t.printed[k], text)
}

func (t *tally) end(k key, how string) {
	if k.test == "" {
		delete(t.open, k.pkg)
		if how != "fail" {
			return
		}
		t.unended(k.pkg)
	}
	t.ended[k] = how
	t.order = append(t.order, k)
	if how == "fail" && !t.verbose && k.test != "" {
		for _, text := range t.printed[k] {
			if !strings.HasPrefix(text, "=== ") {
				io.WriteString(t.out, text)
			}
		}
	}
	if how != "skip" {
		delete(t.printed, k)
	}
}

// mostLines of a test that did not end are shown: those of a crash begin with the reason, and go on with every goroutine.
const mostLines = 100

// unended shows what the tests of a package said that died with it, one of them of what.
func (t *tally) unended(pkg string) {
	if t.verbose {
		return
	}
	for _, k := range slices.SortedFunc(maps.Keys(t.printed), func(a, b key) int { return strings.Compare(a.test, b.test) }) {
		if _, ended := t.ended[k]; k.pkg != pkg || k.test == "" || ended {
			continue
		}
		lines := slices.DeleteFunc(slices.Clone(t.printed[k]), func(text string) bool { return strings.HasPrefix(text, "=== ") })
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(t.out, "--- %s did not end\n%s", k.test, strings.Join(lines[:min(len(lines), mostLines)], ""))
		if more := len(lines) - mostLines; more > 0 {
			fmt.Fprintf(t.out, "(%d lines more)\n", more)
		}
	}
}

// counts counts the tests without subtests. A test with subtests, or a package, that failed with none of its own
// having failed is one more.
func (t *tally) counts() (c Counts) {
	blamed := map[key]bool{} // what failed because of something below it
	for _, k := range t.order {
		how := t.ended[k]
		if how == "fail" {
			blamed[above(k)] = true
		}
		inner := t.parents[k] || k.test == ""
		switch {
		case how == "fail" && !blamed[k]:
			c.Failed++
			c.Failures = append(c.Failures, k.String())
		case inner:
		case how == "pass":
			c.Passed++
		case how == "skip":
			c.Skipped++
			c.Skips = append(c.Skips, k.String()+": "+reason(t.printed[k]))
		}
	}
	for pkg := range t.open {
		c.Failed++
		c.Failures = append(c.Failures, pkg+" did not end")
	}
	c.Skipped, c.Skips = c.Skipped+len(t.skipped), append(c.Skips, t.skipped...)
	return c
}

// above is what holds a test: another, or its package.
func above(k key) key {
	if k.test == "" {
		return key{}
	}
	return key{k.pkg, k.test[:max(0, strings.LastIndexByte(k.test, '/'))]}
}

func (k key) String() string { return strings.TrimSuffix(k.pkg+" "+k.test, " ") }

// reason is what a test said last before it skipped itself.
func reason(printed []string) string {
	for i := len(printed) - 1; i >= 0; i-- {
		line := strings.TrimSpace(printed[i])
		if line != "" && !strings.HasPrefix(line, "--- ") && !strings.HasPrefix(line, "=== ") {
			if _, text, ok := strings.Cut(line, ".go:"); ok {
				_, line, _ = strings.Cut(text, ": ")
			}
			return line
		}
	}
	return "it did not say why"
}
