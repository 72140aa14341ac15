package oracle

import (
	"fmt"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// What is drawn at random is drawn so often, and then agrees so well (five standard deviations between two sides).
const (
	drawn  = 2000
	chance = 0.08
)

const weighted = `{common_lb_config: {locality_weighted_lb_config: {}, healthy_panic_threshold: {value: %d}}%s}`

// localityCase compares what each zone gets with each other and with the formula.
func localityCase(name string, panicPercent uint32, at ...locality) testCase {
	cl := cluster{name: "a", yaml: fmt.Sprintf(weighted, panicPercent, ""), at: at}
	return testCase{name: name, clusters: []cluster{cl}, run: func(p *probe) {
		want := map[string]float64{}
		for host, share := range cl.predicted(panicPercent) {
			if share > 0 {
				want[cl.zone(host)] += share
			}
		}
		if len(want) == 0 {
			want["503"] = 1
		}
		got := map[string]float64{}
		// Priorities are drawn, localities of one priority are taken in turns.
		n, tolerance := 600, 0.01
		if at[len(at)-1].priority > 0 {
			n, tolerance = drawn, chance
		}
		for host, share := range p.spread(n, request{}) {
			got[cl.zone(host)] += share
		}
		p.share("zones", got, want, tolerance)
	}}
}

// zone of a host by its address or name.
func (cl *cluster) zone(host string) string {
	found := host
	cl.each(func(l locality, address string, _ uint32, _ corev3.HealthStatus) {
		if address == host || hostOf(address) == host {
			found = l.zone
		}
	})
	return found
}

func localityCases() []testCase {
	y := locality{zone: "y", weight: 2, up: 10}
	x := func(up, unhealthy int) locality { return locality{zone: "x", weight: 1, up: up, unhealthy: unhealthy} }
	return []testCase{
		localityCase("locality-100", 0, x(10, 0), y),
		localityCase("locality-70", 0, x(7, 3), y),
		localityCase("locality-69", 0, x(69, 31), y),
		localityCase("locality-50", 0, x(5, 5), y),
		localityCase("locality-25", 0, x(5, 15), y),
		localityCase("locality-0", 0, x(0, 10), y),
		localityCase("locality-all-unhealthy", 0, x(0, 10), locality{zone: "y", weight: 2, unhealthy: 10}),
		localityCase("locality-panic", 50, x(1, 9), locality{zone: "y", weight: 2, unhealthy: 10}),
		localityCase("locality-spill", 0, x(5, 5), locality{zone: "y", weight: 1, unhealthy: 2}, locality{zone: "z", priority: 1, weight: 1, up: 5}),
		{name: "locality-without-weight", clusters: []cluster{{name: "a", yaml: fmt.Sprintf(weighted, 0, ""), at: []locality{{zone: "x", up: 3}, {zone: "y", weight: 1, up: 3}}}},
			run: func(p *probe) { p.share("hosts", p.spread(60, request{}), nil, 0.02) }},
		{name: "locality-no-weights-at-all", clusters: []cluster{{name: "a", yaml: fmt.Sprintf(weighted, 0, ""), at: []locality{{zone: "x", up: 1}, {zone: "y", up: 1}}}},
			run: func(p *probe) { p.share("hosts", p.spread(60, request{}), nil, 0.02) }},
		{name: "locality-weights-unasked", clusters: []cluster{{name: "a", at: []locality{{zone: "x", weight: 9, up: 1}, {zone: "y", weight: 1, up: 3}}}},
			run: func(p *probe) { p.share("hosts", p.spread(400, request{}), nil, 0.02) }},
		mappingCase("locality-ring-hash", fmt.Sprintf(weighted, 0, ", lb_policy: RING_HASH"), x(3, 0), locality{zone: "y", weight: 3, up: 2}),
	}
}

// mappingCase: every hash must lead to the same host.
func mappingCase(name, yaml string, at ...locality) testCase {
	return testCase{name: name, clusters: []cluster{{name: "a", yaml: yaml, at: at}}, routes: byHash, run: func(p *probe) {
		var hosts []string
		for i := range 300 {
			a := p.send(request{headers: []string{fmt.Sprintf("x-hash: user-%d", i)}})
			hosts = append(hosts, a.who())
		}
		for len(hosts) > 0 {
			p.note("%s", strings.Join(hosts[:20], " "))
			hosts = hosts[20:]
		}
	}}
}

// sticky tells which of the requests reached the host of the first.
func sticky(p *probe, requests ...request) {
	first := ""
	var same []bool
	for i, r := range requests {
		a := p.send(r)
		if i == 0 {
			first = a.who()
		}
		same = append(same, a.who() == first)
	}
	p.note("same host: %v", same)
}

func withHeaders(headers ...string) request { return request{headers: headers} }

// hosts that the same keys lead to.
func reaches(p *probe, requests ...request) {
	var hosts []string
	for _, r := range requests {
		a := p.send(r)
		hosts = append(hosts, a.who())
	}
	p.note("%v", hosts)
}

func hashRoute(policies string) string {
	return `[{match: {prefix: /}, route: {cluster: "@a", hash_policy: ` + policies + `}}]`
}

func balanceCases() []testCase {
	const ring = `{lb_policy: RING_HASH}`
	return []testCase{
		{name: "round-robin-sequence", clusters: a(3, ""), run: roundRobin},
		{name: "round-robin-weights", clusters: []cluster{{name: "a", at: []locality{{up: 3, weights: []uint32{1, 2, 5}}}}},
			run: func(p *probe) {
				p.share("hosts", p.spread(400, request{}), map[string]float64{"0.1": .125, "0.2": .25, "0.3": .625}, 0.01)
			}},
		{name: "random-weights", clusters: []cluster{{name: "a", yaml: `{lb_policy: RANDOM}`, at: []locality{{up: 3}}}},
			run: func(p *probe) {
				p.share("hosts", p.spread(drawn, request{}), map[string]float64{"0.1": 1. / 3, "0.2": 1. / 3, "0.3": 1. / 3}, chance)
			}},
		{name: "least-request-avoids-busy", clusters: a(2, `{lb_policy: LEAST_REQUEST}`), run: leastRequest},
		{name: "least-request-weights", clusters: []cluster{{name: "a", yaml: `{lb_policy: LEAST_REQUEST}`, at: []locality{{up: 2, weights: []uint32{1, 3}}}}},
			run: func(p *probe) {
				p.share("hosts", p.spread(drawn, request{}), map[string]float64{"0.1": .25, "0.2": .75}, chance)
			}},
		mappingCase("ring-hash-mapping", ring, locality{up: 7}),
		mappingCase("ring-hash-weights", ring, locality{up: 3, weights: []uint32{1, 5, 2}}),
		mappingCase("ring-hash-small-ring", `{lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 8, maximum_ring_size: 16}}`, locality{up: 5}),
		mappingCase("maglev-mapping", `{lb_policy: MAGLEV}`, locality{up: 7}),
		mappingCase("maglev-weights", `{lb_policy: MAGLEV}`, locality{up: 3, weights: []uint32{1, 5, 2}}),
		mappingCase("ring-hash-unhealthy", ring, locality{up: 4, unhealthy: 1}),
		{name: "hash-source-ip", clusters: a(5, ring), routes: hashRoute(`[{connection_properties: {source_ip: true}}]`), run: func(p *probe) {
			reaches(p, request{from: "127.45.0.50"}, request{from: "127.45.0.51"}, request{from: "127.45.0.52"}, request{from: "127.45.0.50"})
		}},
		{name: "hash-cookie", clusters: a(5, ring), routes: hashRoute(`[{cookie: {name: s}}]`), run: func(p *probe) {
			reaches(p, withHeaders("cookie: s=one"), withHeaders("cookie: x=2; s=two"), withHeaders(`cookie: s="one"`), withHeaders("cookie: s=three"))
		}},
		{name: "hash-cookie-made", clusters: a(5, ring), routes: hashRoute(`[{cookie: {name: s, ttl: 60s, path: /p}}]`), run: madeCookie},
		{name: "hash-query", clusters: a(5, ring), routes: hashRoute(`[{query_parameter: {name: u}}]`), run: func(p *probe) {
			reaches(p, request{path: "/?u=one"}, request{path: "/?u=two&v=1"}, request{path: "/x?v=2&u=one"}, request{path: "/?u=a%20b"})
		}},
		{name: "hash-combined", clusters: a(5, ring), routes: hashRoute(`[{header: {header_name: x-a}}, {header: {header_name: x-b}}]`), run: func(p *probe) {
			reaches(p, withHeaders("x-a: 1"), withHeaders("x-b: 1"), withHeaders("x-a: 1", "x-b: 1"), withHeaders("x-a: 1", "x-b: 2"), withHeaders("x-a: 3", "x-b: 2"))
		}},
		{name: "hash-terminal", clusters: a(5, ring), routes: hashRoute(`[{header: {header_name: x-a}, terminal: true}, {header: {header_name: x-b}}]`), run: func(p *probe) {
			reaches(p, withHeaders("x-a: 1"), withHeaders("x-a: 1", "x-b: 1"), withHeaders("x-a: 1", "x-b: 2"), withHeaders("x-b: 2"))
		}},
		{name: "hash-header-twice", clusters: a(5, ring), routes: byHash, run: func(p *probe) {
			reaches(p, withHeaders("x-hash: b", "x-hash: a"), withHeaders("x-hash: a", "x-hash: b"), withHeaders("x-hash: a,b"), withHeaders("x-hash: a"), withHeaders("x-hash:"))
		}},
		splitCase("split-90-10", `[{name: "@a", weight: 90}, {name: "@b", weight: 10}]`, map[string]float64{"0.1": .9, "1.1": .1}),
		splitCase("split-total-3", `[{name: "@a", weight: 1}, {name: "@b", weight: 2}]`, map[string]float64{"0.1": 1. / 3, "1.1": 2. / 3}),
		splitCase("split-zero", `[{name: "@a", weight: 0}, {name: "@b", weight: 2}]`, map[string]float64{"1.1": 1}),
		splitCase("split-missing-cluster", `[{name: "@a", weight: 3}, {name: "@gone", weight: 1}]`, map[string]float64{"0.1": .75, "503": .25}),
		{name: "drop-overload", clusters: []cluster{{name: "a", at: []locality{{up: 1}}, extra: `{drop_overloads: [{category: c, drop_percentage: {numerator: 30}}]}`}},
			run: func(p *probe) {
				p.share("dropped", p.spread(drawn, request{}), map[string]float64{"0.1": .7, "503": .3}, chance)
			}},
		{name: "drop-overload-all", clusters: []cluster{{name: "a", at: []locality{{up: 1}}, extra: `{drop_overloads: [{category: c, drop_percentage: {numerator: 100}}]}`}},
			run: func(p *probe) { p.gotAll(p.do(request{})) }},
	}
}

func splitCase(name, clusters string, want map[string]float64) testCase {
	return testCase{name: name, routes: `[{match: {prefix: /}, route: {weighted_clusters: {clusters: ` + clusters + `}}}]`,
		clusters: []cluster{{name: "a", at: []locality{{up: 1}}}, {name: "b", at: []locality{{block: 1, up: 1}}}},
		run: func(p *probe) {
			got := map[string]float64{}
			for host, share := range p.spread(drawn, request{}) {
				got[host] += share
			}
			p.share("clusters", got, want, chance)
		}}
}

func roundRobin(p *probe) {
	var hosts []string
	for range 12 {
		a := p.send(request{})
		hosts = append(hosts, a.who())
	}
	even := true
	for i := 3; i < len(hosts); i++ {
		even = even && hosts[i] == hosts[i-3]
	}
	p.note("takes turns: %v, %v", even, hosts[0] != hosts[1] && hosts[1] != hosts[2] && hosts[0] != hosts[2])
}

// leastRequest: while one host holds requests, the others go to the idle one.
func leastRequest(p *probe) {
	var held sync.WaitGroup
	for i := range 2 { // one on each
		held.Go(func() {
			other := &probe{t: p.t, test: p.test, side: p.side, upstreams: p.upstreams, requests: 1000 * (i + 1)}
			other.send(request{headers: []string{"x-script: 0.1:1s,0.2:10ms"}})
			other.hangUp()
		})
	}
	held.Wait()
	busy := make(chan struct{})
	go func() {
		defer close(busy)
		other := &probe{t: p.t, test: p.test, side: p.side, upstreams: p.upstreams, requests: 5000}
		other.send(request{headers: []string{"x-script: 2s"}})
		other.hangUp()
	}()
	var host string
	for host == "" {
		if seen := p.upstreams.attempts(fmt.Sprintf("%s.%s.5001", p.test.name, p.side.name)); len(seen) > 0 {
			host = seen[0].host
		}
	}
	onBusy := 0
	for range 60 {
		if a := p.send(request{}); a.who() == host {
			onBusy++
		}
	}
	p.note("the busy one of two hosts is spared: %v", onBusy < 27)
	<-busy
}

func madeCookie(p *probe) {
	first := p.do(request{})
	cookie := first.headers.Get("Set-Cookie")
	value, attributes, _ := strings.Cut(cookie, ";")
	name, secret, _ := strings.Cut(value, "=")
	p.note("cookie %s of %d quoted characters; attributes %q", name, len(secret), attributes)
	var same []bool
	for range 5 {
		a := p.send(withHeaders("cookie: " + value))
		same = append(same, a.who() == first.who() && a.headers.Get("Set-Cookie") == "")
	}
	p.note("same host: %v", same)
}
