package up

import (
	"fmt"
	"os"
	"os/exec"
)

// hint is a command to try, and what it does.
type hint struct{ command, does string }

func (p *Plan) tries() []hint {
	first, last := p.Clusters[0].Name, "the next region takes over"
	if len(p.Clusters) == 1 {
		last = "it was the last"
	}
	return []hint{
		{p.Command("up kill catalog-" + first + "-a"), "the next zone takes over"},
		{p.Command("up kill catalog-" + first + "-b"), last},
		{p.Command("up start catalog-" + first + "-a"), "and back"},
		{p.Command("up kill controller-" + first), "a new leader; nothing fails"},
		{fmt.Sprintf("periplus explain --from %[1]s/%[1]s-a catalog.shop", first), ""},
		{"periplus cluster list -o wide", ""},
	}
}

// Command is a command line of 'up' or 'down' for this mesh.
func (p *Plan) Command(words string) string { return command(p.Dir, words) }

func command(dir, words string) string {
	if standard, err := DefaultDir(); err == nil && standard == dir {
		return "periplus " + words
	}
	return "periplus " + words + " --dir " + dir
}

// alias is what makes the command of the hints known to a shell that does not know it; "" if it does.
func (p *Plan) alias() string {
	found, err := exec.LookPath("periplus")
	if err == nil {
		own, err1 := os.Stat(p.Executable)
		other, err2 := os.Stat(found)
		if err1 == nil && err2 == nil && os.SameFile(own, other) {
			return ""
		}
	}
	return "alias periplus=" + p.path("bin", "periplus")
}

// hints say what to try next. What a command does is left out where the line has no room for it.
func (v View) hints(plan *Plan, columns int) []string {
	lines := []string{"Dashboard: " + plan.DashboardURL(0), "Try, in another terminal:"}
	if alias := plan.alias(); alias != "" {
		lines = append(lines, "  "+alias)
	}
	tries, longest := plan.tries(), 0
	for _, h := range tries {
		if h.does != "" {
			longest = max(longest, len(h.command))
		}
	}
	for _, h := range tries {
		text := "  " + h.command
		if full := fmt.Sprintf("  %-*s  # %s", longest, h.command, h.does); h.does != "" && len(full) <= columns {
			text = full
		}
		lines = append(lines, text)
	}
	return append(lines, "Ctrl-C, or '"+plan.Command("down")+"', ends it. Logs and state: "+plan.Dir)
}

// fitting leaves hints out where there is no room for all: of the commands the last ones first.
func fitting(hints []string, rows int) []string {
	first, last := hints[0], hints[len(hints)-1]
	switch {
	case len(hints) <= rows:
		return hints
	case rows > 3:
		return append(hints[:rows-1:rows-1], last)
	}
	return []string{first, last}
}
