package up

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/periplus-mesh/periplus/internal/demo"
)

// stats of three regions, one of which has lost its catalog.
func lost() demo.Stats {
	stats := demo.Stats{Total: 1200, Fails: 3, Last: strings.Repeat("a long error ", 30)}
	for _, region := range regions[:3] {
		stats.Regions = append(stats.Regions, demo.RegionStats{Region: region, Rate: 20, Success: 0.995, P50: 1.5, P99: 12})
		for _, service := range []string{"catalog", "storefront"} {
			stats.Flows = append(stats.Flows, demo.Flow{Service: service, From: region, To: region, Rate: 20})
		}
	}
	stats.Flows[0] = demo.Flow{Service: "catalog", From: "eu-west", To: "ap-south", Rate: 5}
	stats.Flows = append(stats.Flows, demo.Flow{Service: "catalog", From: "eu-west", To: "us-east", Rate: 15})
	return stats
}

var sequences = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// No frame scrolls the terminal: what matters most stands at its top.
func TestFramesFitTheTerminal(t *testing.T) {
	p := plan(t, Options{Dir: "/tmp/" + strings.Repeat("d", 50)})
	report := Report{}
	for _, process := range p.Processes {
		report.Processes = append(report.Processes, Status{Name: process.Name, State: Failed})
	}
	for _, size := range [][2]int{{80, 24}, {80, 50}, {132, 40}, {20, 5}, {1, 1}} {
		v := View{Terminal: true, Colour: true, Size: func() (int, int) { return size[0], size[1] }}
		lines := strings.Split(sequences.ReplaceAllString(v.draw(p, report, lost(), nil), ""), "\n")
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > size[0] {
				t.Errorf("%v: %d columns: %s", size, utf8.RuneCountInString(l), l)
			}
		}
		if size[1] >= 24 && (!strings.Contains(lines[0], "Periplus") || !strings.Contains(strings.Join(lines, "\n"), "Dashboard: ")) {
			t.Errorf("%v: %s", size, strings.Join(lines, "\n"))
		}
	}
}

func TestFlowsNameWhatLeavesItsRegion(t *testing.T) {
	got := strings.Join(View{}.flows(lost()), "\n")
	want := "SERVICE      SERVED BY\n" +
		"catalog      eu-west -> us-east 75%, ap-south 25%\n" +
		"             the others' own\n" +
		"storefront   each region's own\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (View{}).flows(demo.Stats{}); len(got) != 2 {
		t.Errorf("without traffic: %q", got)
	}
}

func TestCutKeepsWholeCharacters(t *testing.T) {
	for _, c := range []struct {
		line    string
		columns int
		want    string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "abc" + plain}, {"äöü", 2, "äö" + plain}, {red + "ab" + plain, 2, red + "ab" + plain},
		{red + "abc" + plain, 2, red + "ab" + plain}, {"", 0, ""},
	} {
		if got := cut(c.line, c.columns); got != c.want {
			t.Errorf("cut(%q, %d) = %q, want %q", c.line, c.columns, got, c.want)
		}
	}
}

func TestDownNamesAll(t *testing.T) {
	report := Report{Processes: []Status{{Name: "one", State: Running}}}
	if got := (View{}).down(report, 80); got != nil {
		t.Errorf("all run: %q", got)
	}
	for range 3 {
		report.Processes = append(report.Processes, Status{Name: "catalog-eu-west-a", State: Failed})
	}
	got := strings.Join((View{}).down(report, 60), "\n")
	if want := "Down: catalog-eu-west-a (failed) catalog-eu-west-a (failed)\n      catalog-eu-west-a (failed)\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDownCountsTheRest(t *testing.T) {
	report := Report{Processes: make([]Status, 10)}
	for i := range report.Processes {
		report.Processes[i] = Status{Name: "p", State: Failed}
	}
	got := (View{}).down(report, 18)
	want := []string{"Down: p (failed)", "      p (failed)", "      p (failed)", "      and 7 more", ""}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q", got, want)
	}
}

// What is suggested is a command that works: it names the folder unless it is the usual one.
func TestHintsNameTheFolder(t *testing.T) {
	p := plan(t, Options{Dir: "/tmp/elsewhere"})
	for _, l := range (View{}).hints(p, 80) {
		if strings.Contains(l, "periplus up ") && !strings.Contains(l, "--dir /tmp/elsewhere") {
			t.Error(l)
		}
	}
	t.Setenv("XDG_STATE_HOME", "/tmp/state")
	usual := plan(t, Options{Dir: "/tmp/state/periplus/up"})
	text := strings.Join((View{}).hints(usual, 80), "\n")
	if strings.Contains(text, "--dir") || !strings.Contains(text, "# the next zone takes over") {
		t.Error(text)
	}
}
