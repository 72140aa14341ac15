package oracle

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

func failureCases() []testCase {
	return []testCase{
		{name: "no-endpoints", clusters: a(0, ""), run: func(p *probe) { p.gotAll(p.do(request{})) }},
		{name: "no-healthy-host", clusters: []cluster{{name: "a", yaml: `{common_lb_config: {healthy_panic_threshold: {value: 0}}}`, at: levels([2]int{0, 2})}},
			run: func(p *probe) { p.gotAll(p.do(request{})) }},
		{name: "no-cluster", routes: `[{match: {prefix: /404}, route: {cluster: "@gone", cluster_not_found_response_code: NOT_FOUND}}, {match: {prefix: /}, route: {cluster: "@gone"}}]`,
			run: func(p *probe) {
				p.gotAll(p.do(request{}))
				p.do(request{path: "/404"})
			}},
		{name: "connect-refused", clusters: []cluster{{name: "a", at: []locality{{refusing: 1}}}}, run: func(p *probe) { p.gotAll(p.do(request{})) }},
		{name: "upstream-reset", clusters: a(1, fresh), run: func(p *probe) {
			p.do(withHeaders("x-script: reset"))
			p.do(withHeaders("x-script: close"))
			p.do(request{method: "POST", body: "x", headers: []string{"x-script: close"}})
		}},
		{name: "upstream-garbage", clusters: a(1, fresh), run: func(p *probe) { p.gotAll(p.do(withHeaders("x-script: garbage"))) }},
		{name: "upstream-half-a-response", clusters: a(1, fresh), run: func(p *probe) { p.do(withHeaders("x-script: half")) }},
		rawResponse("upstream-bad-framing",
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
			"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
		rawResponse("upstream-odd-heads",
			"HTTP/1.0 200 OK\r\n\r\nuntil close",
			"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 299 Own Reason\r\nContent-Length: 2\r\n\r\nab",
			"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nBad Name: a\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
			"HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
		rawResponse("upstream-too-large-headers", "HTTP/1.1 200 OK\r\nX-Large: "+strings.Repeat("x", 70<<10)+"\r\nContent-Length: 0\r\n\r\n"),
	}
}

func rawResponse(name string, responses ...string) testCase {
	return testCase{name: name, clusters: a(1, fresh), run: func(p *probe) {
		for _, r := range responses {
			text := r
			if len(text) > 200 {
				text = text[:200]
			}
			p.note("%q", text)
			a := p.do(withHeaders("x-script: raw", "x-raw: "+base64.StdEncoding.EncodeToString([]byte(r))))
			if a.status == 200 {
				p.note("  body %q", a.body)
			}
			p.got(a, "Content-Length", "Transfer-Encoding", "X", "X-Envoy-Overloaded")
		}
	}}
}

// together makes n requests at once, each a moment after the one before, and notes their statuses in order.
func together(p *probe, n int, r request) []answer {
	answers := make([]answer, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			other := &probe{t: p.t, test: p.test, side: p.side, upstreams: p.upstreams, requests: 100 * (i + 1)}
			time.Sleep(time.Duration(i) * 40 * time.Millisecond)
			answers[i] = other.do(r)
			answers[i].id = strings.Join(other.outcome.lines, "\n")
			other.hangUp()
		})
	}
	running.Wait()
	for _, a := range answers {
		p.note("%s", a.id)
	}
	return answers
}

func limitCases() []testCase {
	breaker := func(limits string) string {
		return `{circuit_breakers: {thresholds: [{` + limits + `}]}}`
	}
	slow := withHeaders("x-script: 400ms")
	return []testCase{
		{name: "breaker-max-connections-pending", clusters: a(1, breaker(`max_connections: 1, max_pending_requests: 1`)), run: func(p *probe) {
			p.gotAll(together(p, 4, slow)[3])
		}},
		{name: "breaker-max-connections-no-pending", clusters: a(1, breaker(`max_connections: 1, max_pending_requests: 0`)), run: func(p *probe) { together(p, 2, slow) }},
		{name: "breaker-max-requests-http2", clusters: a(1, `{circuit_breakers: {thresholds: [{max_requests: 2}]}, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}`),
			run: func(p *probe) {
				s := slow
				s.h2 = true
				together(p, 4, s)
			}},
		{name: "breaker-max-requests-http1", clusters: a(1, breaker(`max_requests: 2`)), run: func(p *probe) { together(p, 4, slow) }},
		{name: "breaker-zero-requests", clusters: a(1, breaker(`max_requests: 0`)), run: func(p *probe) { p.do(request{}) }},
		{name: "max-requests-per-connection", clusters: a(1, `{typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {max_requests_per_connection: 2}, explicit_http_config: {http_protocol_options: {}}}}}`),
			run: func(p *probe) {
				var ports []string
				for range 6 {
					a := p.send(request{})
					ports = append(ports, p.upstreams.attempts(a.id)[0].request.RemoteAddr)
				}
				slices.Sort(ports)
				p.note("connections for six requests: %d", len(slices.Compact(ports)))
			}},
		{name: "headers-too-large", listener: "small", clusters: a(1, ""), run: func(p *probe) {
			p.do(withHeaders("x-large: " + strings.Repeat("x", 7000)))
			a := p.do(request{raw: "GET / HTTP/1.1\nHost: headers-too-large.test\nID\nx-large: " + strings.Repeat("x", 9000) + "\n\n"})
			p.gotAll(a)
		}},
		{name: "headers-too-many", clusters: a(1, ""), run: func(p *probe) {
			for _, n := range []int{90, 200} {
				var headers strings.Builder
				for i := range n {
					fmt.Fprintf(&headers, "x-%d: y\n", i)
				}
				p.do(request{raw: "GET / HTTP/1.1\nHost: headers-too-many.test\nID\n" + headers.String() + "\n"})
			}
		}},
		{name: "url-too-large", listener: "small", clusters: a(1, ""), run: func(p *probe) {
			p.do(request{raw: "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\nHost: url-too-large.test\nID\n\n"})
		}},
	}
}

// try makes a request; after a failure it leaves a proxy the time to take the host out.
func try(p *probe, r request) answer {
	a := p.send(r)
	if a.status != 200 {
		time.Sleep(10 * time.Millisecond)
	}
	return a
}

func healthCases() []testCase {
	// Without a merge window, which delays changes of health by up to a second.
	outlier := func(fields string) string {
		return `{outlier_detection: {interval: 0.1s, base_ejection_time: 60s, max_ejection_percent: 100, success_rate_minimum_hosts: 100, ` + fields +
			`}, common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}}`
	}
	failing := withHeaders("x-script: 0.1:503")
	// failures of host 0.1 until it is ejected, if ever.
	failures := func(p *probe, r request, rounds int) {
		count := 0
		for range rounds {
			if a := try(p, r); a.status != 200 {
				count++
			}
		}
		p.note("failures among %d: %d", rounds, count)
	}
	return []testCase{
		{name: "outlier-5xx", clusters: a(4, outlier(`consecutive_5xx: 3, enforcing_consecutive_gateway_failure: 0`)), run: func(p *probe) { failures(p, failing, 40) }},
		{name: "outlier-5xx-default-five", clusters: a(4, outlier(`enforcing_success_rate: 0`)), run: func(p *probe) { failures(p, withHeaders("x-script: 0.1:500"), 60) }},
		{name: "outlier-gateway-failure", clusters: a(4, outlier(`consecutive_5xx: 50, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100`)), run: func(p *probe) { failures(p, failing, 40) }},
		{name: "outlier-gateway-failure-unenforced", clusters: a(4, outlier(`consecutive_5xx: 50, consecutive_gateway_failure: 2`)), run: func(p *probe) { failures(p, failing, 40) }},
		{name: "outlier-gateway-failure-500", clusters: a(4, outlier(`consecutive_5xx: 50, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100`)),
			run: func(p *probe) { failures(p, withHeaders("x-script: 0.1:500"), 40) }},
		{name: "outlier-default-percent", clusters: a(4, `{outlier_detection: {interval: 0.1s, consecutive_5xx: 2}}`), run: func(p *probe) { failures(p, failing, 40) }},
		{name: "outlier-percent-two-hosts", clusters: a(4, `{outlier_detection: {interval: 0.1s, consecutive_5xx: 2, max_ejection_percent: 50}, common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}}`),
			run: func(p *probe) {
				counts := map[string]int{}
				for range 60 {
					a := try(p, withHeaders("x-script: 0.1:503,0.2:503,0.3:503"))
					counts[a.headers.Get("X-Backend")]++
				}
				ejected := 0
				for _, n := range counts {
					if n < 8 {
						ejected++
					}
				}
				p.note("hosts ejected: %d", ejected)
			}},
		{name: "outlier-always-one", clusters: a(4, `{outlier_detection: {interval: 0.1s, consecutive_5xx: 2, always_eject_one_host: true}}`), run: func(p *probe) { failures(p, failing, 40) }},
		{name: "outlier-all-and-panic", clusters: a(2, `{outlier_detection: {interval: 0.1s, base_ejection_time: 60s, consecutive_5xx: 2, max_ejection_percent: 100}, common_lb_config: {update_merge_window: 0s}}`), run: func(p *probe) {
			for range 12 {
				try(p, withHeaders("x-script: 503"))
			}
			p.do(request{})
		}},
		{name: "outlier-all-no-panic", clusters: a(2, outlier(`consecutive_5xx: 2`)), run: func(p *probe) {
			for range 12 {
				try(p, withHeaders("x-script: 503"))
			}
			p.do(request{})
		}},
		{name: "outlier-connect-failure", clusters: []cluster{{name: "a", yaml: outlier(`consecutive_5xx: 3`), at: []locality{{up: 1, refusing: 1}}}}, run: func(p *probe) { failures(p, request{}, 40) }},
		{name: "outlier-reset", clusters: a(2, outlier(`consecutive_5xx: 3`)+""), run: func(p *probe) {
			count := 0
			for range 30 {
				a := try(p, withHeaders("x-script: 0.1:reset"))
				if a.status == 503 {
					count++
				}
			}
			p.note("failures %d", count)
		}},
		{name: "outlier-timeout", clusters: a(2, outlier(`consecutive_5xx: 2`)), routes: `[{match: {prefix: /}, route: {cluster: "@a", timeout: 0.05s}}]`, run: func(p *probe) {
			count := 0
			for range 12 {
				a := try(p, withHeaders("x-script: 0.1:hang"))
				if a.status == 504 {
					count++
				}
			}
			p.note("failures %d", count)
		}},
		{name: "outlier-split-local", clusters: []cluster{{name: "a", yaml: outlier(`consecutive_5xx: 50, split_external_local_origin_errors: true, consecutive_local_origin_failure: 2`), at: []locality{{up: 1, refusing: 1}}}},
			run: func(p *probe) { failures(p, request{}, 30) }},
		{name: "outlier-returns", clusters: a(2, `{outlier_detection: {interval: 0.1s, base_ejection_time: 0.5s, consecutive_5xx: 2, max_ejection_percent: 100, max_ejection_time_jitter: 0s}, common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}}`),
			run: func(p *probe) {
				for range 8 {
					try(p, failing)
				}
				began := time.Now()
				for time.Since(began) < 5*time.Second {
					if a := p.send(request{}); a.who() == "0.1" {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
				took := time.Since(began)
				p.note("back between 0.3 s and 1.5 s: %v", took > 300*time.Millisecond && took < 1500*time.Millisecond)
			}},
		{name: "outlier-failover", clusters: []cluster{{name: "a", yaml: outlier(`consecutive_5xx: 2`), at: []locality{{up: 1}, {priority: 1, up: 1}}}}, run: func(p *probe) {
			for range 2 {
				try(p, withHeaders("x-script: 503"))
			}
			p.note("%v", p.spread(10, request{}))
		}},
		{name: "active-health-check", routes: `[{match: {prefix: /envoy}, route: {cluster: "@envoy"}}, {match: {prefix: /go}, route: {cluster: "@go"}}]`, clusters: checked(`{common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}, health_checks: [{timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: {path: /health, host: "SIDE"}}]}`),
			run: activeHealth},
		{name: "active-health-check-refusing", clusters: []cluster{{name: "a", at: []locality{{up: 1, refusing: 1}},
			yaml: `{health_checks: [{timeout: 1s, interval: 0.1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}`}},
			run: func(p *probe) {
				for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
					if good := p.spread(10, request{}); good["0.1"] > 0.99 {
						break
					}
				}
				p.note("%v", p.spread(20, request{}))
			}},
	}
}

// checked has a cluster for each side, so that each can have a health of its own.
func checked(yaml string) []cluster {
	var out []cluster
	for _, side := range []string{"envoy", "go"} {
		out = append(out, cluster{name: side, yaml: strings.ReplaceAll(yaml, "SIDE", side), at: []locality{{up: 2}}})
	}
	return out
}

func activeHealth(p *probe) {
	authority, r := p.side.name, request{path: "/" + p.side.name}
	turn := func(good bool) {
		p.upstreams.setHealth(authority, "0.1", good)
		until := time.Now().Add(4 * time.Second)
		for time.Now().Before(until) {
			got := p.spread(6, r)
			if _, used := got["0.1"]; used == good {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		_, used := p.spread(6, r)["0.1"]
		p.note("healthy %v: used %v", good, used)
	}
	turn(true)
	turn(false)
	turn(true)
}
