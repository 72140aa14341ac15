package oracle

import (
	"fmt"
	"strings"
)

// levels is one locality per priority, with so many healthy and unhealthy hosts.
func levels(counts ...[2]int) []locality {
	var out []locality
	for i, n := range counts {
		out = append(out, locality{priority: uint32(i), up: n[0], unhealthy: n[1]})
	}
	return out
}

const byHash = `[{match: {prefix: /}, route: {cluster: "@a", hash_policy: [{header: {header_name: x-hash}}]}}]`

// loadCase reads the percentage of each priority exactly: the hash of a request picks its priority by its remainder.
func loadCase(name string, panicPercent uint32, policy string, at []locality) testCase {
	cl := cluster{name: "a", yaml: fmt.Sprintf(`{lb_policy: RING_HASH, common_lb_config: {healthy_panic_threshold: {value: %d}}}`, panicPercent), at: at, extra: policy}
	return testCase{name: name, clusters: []cluster{cl}, routes: byHash, run: func(p *probe) {
		loads, where := map[string]int{}, map[string]float64{}
		for _, value := range percents() {
			a := p.send(request{headers: []string{"x-hash: " + value}})
			level, _, _ := strings.Cut(a.who(), ".")
			loads[level]++
			where["P"+level] += 0.01
		}
		p.note("loads %v", loads)
		if policy != "" || at[0].degraded > 0 {
			return // the formula is for what our own control plane serves
		}
		want := map[string]float64{}
		for host, share := range cl.predicted(panicPercent) {
			if share > 0 {
				level, _, _ := strings.Cut(hostOf(host+":1"), ".")
				want["P"+level] += share
			}
		}
		if len(want) == 0 {
			want["P503"] = 1
		}
		p.share("priorities", where, want, 0)
	}}
}

func priorityCases() []testCase {
	return []testCase{
		loadCase("priority-100", 50, "", levels([2]int{100, 0}, [2]int{10, 0})),
		loadCase("priority-72", 50, "", levels([2]int{72, 28}, [2]int{10, 0})),
		loadCase("priority-71", 50, "", levels([2]int{71, 29}, [2]int{10, 0})),
		loadCase("priority-50", 50, "", levels([2]int{5, 5}, [2]int{10, 0})),
		loadCase("priority-25", 50, "", levels([2]int{5, 15}, [2]int{10, 0})),
		loadCase("priority-0", 50, "", levels([2]int{0, 10}, [2]int{10, 0})),
		loadCase("priority-25-25", 0, "", levels([2]int{5, 15}, [2]int{5, 15})),
		loadCase("priority-25-25-20", 0, "", levels([2]int{5, 15}, [2]int{5, 15}, [2]int{4, 16})),
		loadCase("priority-5-65", 0, "", levels([2]int{1, 19}, [2]int{13, 7})),
		loadCase("priority-5-45", 0, "", levels([2]int{1, 19}, [2]int{9, 11})),
		loadCase("priority-50-60", 50, "", levels([2]int{5, 5}, [2]int{6, 4})),
		loadCase("priority-25-100", 50, "", levels([2]int{5, 15}, [2]int{20, 0})),
		loadCase("priority-panic-one", 50, "", levels([2]int{1, 9}, [2]int{5, 5})),
		loadCase("priority-panic-both", 50, "", levels([2]int{1, 9}, [2]int{2, 18})),
		loadCase("priority-panic-total-3", 50, "", levels([2]int{0, 1}, [2]int{0, 1}, [2]int{0, 1})),
		loadCase("priority-none-no-panic", 0, "", levels([2]int{0, 3}, [2]int{0, 3})),
		loadCase("priority-degraded", 50, "", []locality{{up: 5, degraded: 5}, {priority: 1, up: 10}}),
		loadCase("priority-degraded-only", 50, "", []locality{{degraded: 10}, {priority: 1, unhealthy: 4, degraded: 6}}),
		loadCase("priority-overprovisioning", 50, "{overprovisioning_factor: 100}", levels([2]int{5, 5}, [2]int{10, 0})),
		loadCase("priority-weighted-health", 0, "{weighted_priority_health: true}", []locality{
			{up: 1, unhealthy: 1, weights: []uint32{1, 3}}, {priority: 1, up: 4}}),
	}
}
