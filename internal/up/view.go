package up

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/internal/demo"
)

// View draws the live figures. On a terminal it redraws in place; elsewhere it writes a line now and then.
type View struct {
	Out      io.Writer
	Terminal bool
	Colour   bool
	// Size of the terminal, in characters; nil: 80 columns and any number of rows. Asked before each frame.
	Size func() (columns, rows int)
}

// Show draws until ctx ends.
func (v View) Show(ctx context.Context, plan *Plan, report func() Report) {
	every := time.Second
	if !v.Terminal {
		every = 10 * time.Second
		fmt.Fprintln(v.Out, strings.Join(v.hints(plan, wide), "\n"))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		stats, err := fetch(ctx, plan)
		if v.Terminal {
			fmt.Fprint(v.Out, v.draw(plan, report(), stats, err))
		} else if err == nil {
			fmt.Fprintln(v.Out, line(stats, report()))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func fetch(ctx context.Context, plan *Plan) (stats demo.Stats, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+plan.trafficAddress()+"/stats", nil)
	if err != nil {
		return stats, err
	}
	response, err := probe.Do(request)
	if err != nil {
		return stats, err
	}
	defer response.Body.Close()
	return stats, json.NewDecoder(response.Body).Decode(&stats)
}

// Control sequences of terminals (ECMA-48).
const (
	home      = "\x1b[H"
	restOfRow = "\x1b[K" // erases it
	below     = "\x1b[J" // erases it
	red       = "\x1b[31m"
	green     = "\x1b[32m"
	yellow    = "\x1b[33m"
	plain     = "\x1b[0m"
)

// wide is for who has no width.
const wide = 1 << 10

// draw is a frame over the last one, without a moment in which the screen is empty. No line is wider and no frame
// higher than the terminal: it would scroll, and the top be lost.
func (v View) draw(plan *Plan, report Report, stats demo.Stats, err error) string {
	columns, rows := 80, wide
	if v.Size != nil {
		columns, rows = v.Size()
	}
	lines := v.frame(plan, report, stats, err, columns)
	lines = append(lines, fitting(v.hints(plan, columns), rows-1-len(lines))...)
	lines = lines[:max(0, min(len(lines), rows-1))]
	var b strings.Builder
	b.WriteString(home)
	for _, l := range lines {
		b.WriteString(cut(l, columns))
		b.WriteString(restOfRow + "\n")
	}
	b.WriteString(below)
	return b.String()
}

// cut shortens a line to so many characters; control sequences count for nothing.
func cut(line string, columns int) string {
	seen, escaped := 0, false
	for i, r := range line {
		switch {
		case r == '\x1b':
			escaped = true
		case escaped:
			escaped = r != 'm'
		case seen == columns:
			return line[:i] + plain
		default:
			seen++
		}
	}
	return line
}

// frame is the lines that matter most first.
func (v View) frame(plan *Plan, report Report, stats demo.Stats, err error, columns int) []string {
	lines := []string{
		fmt.Sprintf("Periplus: %d clusters, %d controllers   %s", len(plan.Clusters), controllers, time.Now().Format("15:04:05")), "",
	}
	if err != nil {
		lines = append(lines, fmt.Sprintf("The visitors do not answer: %v", err), "")
	} else {
		lines = append(lines, v.regions(stats)...)
		lines = append(lines, v.flows(stats)...)
	}
	return append(lines, v.down(report, columns)...)
}

func (v View) regions(stats demo.Stats) []string {
	lines := []string{fmt.Sprintf("%-12s %10s %9s %9s %9s", "VISITORS IN", "REQUESTS/S", "SUCCESS", "P50", "P99")}
	for _, r := range stats.Regions {
		lines = append(lines, fmt.Sprintf("%-12s %10.1f %s %7.1fms %7.1fms", r.Region, r.Rate, v.success(r.Success), r.P50, r.P99))
	}
	total := fmt.Sprintf("%d requests since the start, %d failed", stats.Total, stats.Fails)
	if stats.Last != "" {
		total += "; last: " + strings.ReplaceAll(stats.Last, "\n", " ")
	}
	return append(lines, total, "")
}

func (v View) success(ratio float64) string {
	colour := green
	if ratio < 1 {
		colour = red
	}
	return v.paint(colour, fmt.Sprintf("%8.2f%%", ratio*100))
}

func (v View) paint(colour, text string) string {
	if !v.Colour {
		return text
	}
	return colour + text + plain
}

// maxDown is how many lines name what does not run.
const maxDown = 3

// down names what does not run, and counts what there is no room for.
func (v View) down(report Report, columns int) (lines []string) {
	text, more := "Down:", 0
	for _, p := range report.Processes {
		if p.State == Running {
			continue
		}
		name := " " + p.Name + " (" + string(p.State) + ")"
		if more == 0 && len(text)+len(name) > columns {
			lines = append(lines, v.paint(yellow, text))
			text = "     "
		}
		if len(lines) == maxDown {
			more++
			continue
		}
		text += name
	}
	switch {
	case text == "Down:":
		return nil
	case more > 0:
		text += fmt.Sprintf(" and %d more", more)
	}
	return append(lines, v.paint(yellow, text), "")
}

// line sums up for logs.
func line(stats demo.Stats, report Report) string {
	var parts []string
	for _, r := range stats.Regions {
		parts = append(parts, fmt.Sprintf("%s %.0f/s %.2f%% p99 %.1fms", r.Region, r.Rate, r.Success*100, r.P99))
	}
	running := 0
	for _, p := range report.Processes {
		if p.State == Running {
			running++
		}
	}
	return fmt.Sprintf("%s  %s  (%d of %d processes run; %d of %d requests failed)", time.Now().Format("15:04:05"),
		strings.Join(parts, "; "), running, len(report.Processes), stats.Fails, stats.Total)
}
