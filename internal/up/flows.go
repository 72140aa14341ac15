package up

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/periplus-mesh/periplus/internal/demo"
)

// atHome is the share of a region's requests to a service that makes it serve its own: figures of a few seconds are
// never exact.
const atHome = 0.995

// origin is the requests to one service from one region.
type origin struct {
	from  string
	total float64
	to    []demo.Flow // the greatest first
}

func (o origin) home() bool {
	return o.to[0].To == o.from && o.to[0].Rate >= atHome*o.total
}

func (o origin) String() string {
	var parts []string
	for _, f := range o.to {
		parts = append(parts, fmt.Sprintf("%s %.0f%%", f.To, 100*f.Rate/o.total))
	}
	return o.from + " -> " + strings.Join(parts, ", ")
}

// flows is where the requests to each service go: a line for a service that every region serves by itself, and one more
// for each region that does not.
func (v View) flows(stats demo.Stats) []string {
	lines := []string{fmt.Sprintf("%-12s %s", "SERVICE", "SERVED BY")}
	services, origins := byService(stats.Flows)
	for _, service := range services {
		name, own, home := service, "each region's own", 0
		for _, o := range origins[service] {
			if o.home() {
				home++
				continue
			}
			lines = append(lines, fmt.Sprintf("%-12s %s", name, v.paint(yellow, o.String())))
			name, own = "", "the others' own"
		}
		if home > 0 {
			lines = append(lines, fmt.Sprintf("%-12s %s", name, own))
		}
	}
	return append(lines, "")
}

func byService(flows []demo.Flow) (services []string, origins map[string][]origin) {
	origins = map[string][]origin{}
	for _, f := range flows {
		if !slices.Contains(services, f.Service) {
			services = append(services, f.Service)
		}
		of := origins[f.Service]
		i := slices.IndexFunc(of, func(o origin) bool { return o.from == f.From })
		if i < 0 {
			i, of = len(of), append(of, origin{from: f.From})
		}
		of[i].total += f.Rate
		of[i].to = append(of[i].to, f)
		origins[f.Service] = of
	}
	for _, of := range origins {
		for _, o := range of {
			slices.SortStableFunc(o.to, func(a, b demo.Flow) int { return cmp.Compare(b.Rate, a.Rate) })
		}
	}
	return services, origins
}
