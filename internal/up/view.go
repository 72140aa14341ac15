package up

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/internal/demo"
)

// View draws the live figures. On a terminal it redraws in place; elsewhere it writes a line now and then.
type View struct {
	Out      io.Writer
	Terminal bool
	Colour   bool
}

// Show draws until ctx ends.
func (v View) Show(ctx context.Context, plan *Plan, report func() Report) {
	every := time.Second
	if !v.Terminal {
		every = 10 * time.Second
		fmt.Fprint(v.Out, v.hints(plan))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		stats, err := fetch(ctx, plan)
		if v.Terminal {
			fmt.Fprint(v.Out, "\x1b[H\x1b[J"+v.frame(plan, report(), stats, err))
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

func (v View) frame(plan *Plan, report Report, stats demo.Stats, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Periplus: %d clusters, %d controllers   %s\n\n", len(plan.Clusters), controllers, time.Now().Format("15:04:05"))
	if err != nil {
		fmt.Fprintf(&b, "The visitors do not answer (%v).\n", err)
	} else {
		v.regions(&b, stats)
		flows(&b, stats)
	}
	v.down(&b, report)
	b.WriteString(v.hints(plan))
	return b.String()
}

func (v View) regions(b *strings.Builder, stats demo.Stats) {
	fmt.Fprintf(b, "%-12s %10s %9s %9s %9s\n", "VISITORS IN", "REQUESTS/S", "SUCCESS", "P50", "P99")
	for _, r := range stats.Regions {
		fmt.Fprintf(b, "%-12s %10.1f %s %7.1fms %7.1fms\n", r.Region, r.Rate, v.success(r.Success), r.P50, r.P99)
	}
	fmt.Fprintf(b, "\nsince the start: %d requests, %d failed", stats.Total, stats.Fails)
	if stats.Last != "" {
		fmt.Fprintf(b, " (last: %.100s)", strings.ReplaceAll(stats.Last, "\n", " "))
	}
	b.WriteString("\n\n")
}

func (v View) success(ratio float64) string {
	text := fmt.Sprintf("%8.2f%%", ratio*100)
	switch {
	case !v.Colour:
		return text
	case ratio < 1:
		return "\x1b[31m" + text + "\x1b[0m"
	}
	return "\x1b[32m" + text + "\x1b[0m"
}

// flows is where the traffic of each service goes, a line per service and region of origin.
func flows(b *strings.Builder, stats demo.Stats) {
	fmt.Fprintf(b, "%-12s %-12s %s\n", "SERVICE", "FROM", "SERVED IN")
	type origin struct{ service, from string }
	var order []origin
	served := map[origin][]demo.Flow{}
	for _, f := range stats.Flows {
		o := origin{f.Service, f.From}
		if served[o] == nil {
			order = append(order, o)
		}
		served[o] = append(served[o], f)
	}
	for _, o := range order {
		total := 0.0
		for _, f := range served[o] {
			total += f.Rate
		}
		slices.SortFunc(served[o], func(a, b demo.Flow) int { return int((b.Rate - a.Rate) * 1000) })
		var parts []string
		for _, f := range served[o] {
			parts = append(parts, fmt.Sprintf("%s %.0f%%", f.To, 100*f.Rate/total))
		}
		fmt.Fprintf(b, "%-12s %-12s %s\n", o.service, o.from, strings.Join(parts, ", "))
	}
	b.WriteString("\n")
}

func (v View) down(b *strings.Builder, report Report) {
	var names []string
	for _, p := range report.Processes {
		if p.State != Running {
			names = append(names, p.Name+" ("+string(p.State)+")")
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(b, "Down: %s\n\n", strings.Join(names, ", "))
	}
}

func (v View) hints(plan *Plan) string {
	first := plan.Clusters[0].Name
	return fmt.Sprintf(`Dashboard: %s

Try, in another terminal:
  periplus up kill catalog-%[2]s-a        # one endpoint dies; its zone's traffic moves to the next zone
  periplus up kill catalog-%[2]s-b        # the last one of the region: traffic crosses to another region
  periplus up start catalog-%[2]s-a       # and comes back
  periplus explain --from %[2]s/%[2]s-a catalog.shop
  periplus cluster list -o wide
  periplus up kill controller-%[2]s       # the mesh elects another leader; no request notices
Ctrl-C, or 'periplus down', ends it. Logs and state: %[3]s
`, plan.DashboardURL(0), first, plan.Dir)
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
