package oracle

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// fresh has every request make a connection: one that was kept may be replaced without a retry (kept-connection-dies).
const fresh = `{typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
  common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}}}}`

// retrying is a case with a retry policy, tried with scripts.
func retrying(name, policy string, hosts int, scripts ...string) testCase {
	return testCase{name: name, clusters: a(hosts, fresh), host: `{include_request_attempt_count: true}`,
		routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {` + policy + `, retry_back_off: {base_interval: 0.001s}}}}]`,
		run: func(p *probe) {
			for _, script := range scripts {
				p.note("script %s", script)
				p.saw(p.do(withHeaders("x-script: "+script)), "X-Envoy-Attempt-Count")
			}
		}}
}

func retryCases() []testCase {
	all := []string{"200", "500", "502,200", "503,503,200", "504", "404", "409,200", "reset,200", "close,200", "reset", "garbage,200", "503,500,200"}
	return []testCase{
		retrying("retry-none", `num_retries: 2`, 1, "503", "reset"),
		retrying("retry-5xx", `retry_on: 5xx, num_retries: 2`, 1, all...),
		retrying("retry-gateway-error", `retry_on: gateway-error, num_retries: 2`, 1, all...),
		retrying("retry-reset", `retry_on: reset, num_retries: 2`, 1, all...),
		retrying("retry-connect-failure", `retry_on: connect-failure, num_retries: 2`, 1, all...),
		retrying("retry-reset-before-request", `retry_on: reset-before-request, num_retries: 2`, 1, "reset,200", "close,200", "503,200"),
		retrying("retry-retriable-4xx", `retry_on: retriable-4xx, num_retries: 2`, 1, all...),
		retrying("retry-status-codes", `retry_on: retriable-status-codes, retriable_status_codes: [500, 404], num_retries: 1`, 1, "500,200", "503,200", "404,404,200"),
		retrying("retry-default-number", `retry_on: 5xx`, 1, "503,200", "503,503,200"),
		retrying("retry-zero", `retry_on: 5xx, num_retries: 0`, 1, "503,200"),
		{name: "retry-refused-hosts", clusters: []cluster{{name: "a", at: []locality{{up: 1, refusing: 1}}}}, host: `{include_request_attempt_count: true}`,
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: connect-failure, num_retries: 3, retry_back_off: {base_interval: 0.001s},
				retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 5}}}]`,
			run: func(p *probe) {
				statuses := map[int]int{}
				for range 40 {
					a := p.send(request{})
					statuses[a.status]++
				}
				p.note("%v", statuses)
			}},
		{name: "retry-other-host", clusters: a(3, ""), routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s},
				retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 10}}}]`,
			run: func(p *probe) {
				different := 0
				for range 30 {
					var hosts []string
					for _, s := range p.upstreams.attempts(p.send(withHeaders("x-script: 503,503,200")).id) {
						hosts = append(hosts, s.host)
					}
					slices.Sort(hosts)
					if len(slices.Compact(hosts)) == 3 {
						different++
					}
				}
				p.note("three attempts on three hosts: %d of 30", different)
			}},
		{name: "retry-all-refuse", clusters: []cluster{{name: "a", at: []locality{{refusing: 2}}}},
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: connect-failure, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}]`,
			run:    func(p *probe) { p.gotAll(p.do(request{})) }},
		{name: "kept-connection-dies", clusters: a(1, ""), run: func(p *probe) {
			p.do(request{})
			p.do(withHeaders("x-script: close,200"))
			p.do(request{})
			p.do(request{method: "POST", body: "x", headers: []string{"x-script: close,200"}})
		}},
		{name: "retry-post", clusters: a(1, fresh), routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: "5xx,reset", num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}]`,
			run: func(p *probe) {
				p.saw(p.do(request{method: "POST", body: "payload", headers: []string{"x-script: 503,200"}}))
				p.saw(p.do(request{method: "POST", body: "payload", headers: []string{"x-script: reset,200"}}))
				p.saw(p.do(request{method: "PUT", raw: "PUT / HTTP/1.1\nHost: retry-post.test\nID\nx-script: 503,200\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"}))
			}},
		{name: "retry-request-headers", clusters: a(1, ""), run: func(p *probe) {
			p.do(withHeaders("x-script: 503,200", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 3"))
			p.do(withHeaders("x-script: 503,503,200", "x-envoy-retry-on: 5xx"))
			p.do(withHeaders("x-script: 429,200", "x-envoy-retriable-status-codes: 429", "x-envoy-retry-on: retriable-status-codes"))
		}},
		{name: "retry-attempt-count-response", clusters: a(1, ""), host: `{include_attempt_count_in_response: true, include_request_attempt_count: true}`,
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}]`,
			run:    func(p *probe) { p.got(p.do(withHeaders("x-script: 503,200")), "X-Envoy-Attempt-Count") }},
		{name: "retry-attempt-count-forged", clusters: a(1, ""), run: func(p *probe) {
			p.saw(p.do(withHeaders("x-envoy-attempt-count: 7")), "X-Envoy-Attempt-Count")
		}},
		{name: "retry-virtual-host-policy", clusters: a(1, ""), host: `{retry_policy: {retry_on: 5xx, num_retries: 1}}`,
			routes: `[{match: {prefix: /own}, route: {cluster: "@a", retry_policy: {retry_on: reset, num_retries: 1}}}, {match: {prefix: /}, route: {cluster: "@a"}}]`,
			run: func(p *probe) {
				p.do(request{path: "/own", headers: []string{"x-script: 503,200"}})
				p.do(withHeaders("x-script: 503,200"))
			}},
		{name: "retry-max-retries", clusters: a(1, `{circuit_breakers: {thresholds: [{max_retries: 1}]}}`),
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: 5xx, num_retries: 1, retry_back_off: {base_interval: 0.001s}}}}]`,
			run:    retriesAtOnce},
		{name: "retry-budget", clusters: a(1, `{circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 2}}]}}`),
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: 5xx, num_retries: 1, retry_back_off: {base_interval: 0.001s}}}}]`,
			run:    retriesAtOnce},
	}
}

// retriesAtOnce makes five requests whose second attempts take long enough to be counted together.
func retriesAtOnce(p *probe) {
	var running sync.WaitGroup
	statuses := make([]int, 5)
	for i := range statuses {
		running.Go(func() {
			other := &probe{t: p.t, test: p.test, side: p.side, upstreams: p.upstreams, requests: 100 * (i + 1)}
			time.Sleep(time.Duration(i) * 50 * time.Millisecond)
			a := other.send(withHeaders("x-script: 503,600ms"))
			statuses[i] = a.status
			other.hangUp()
		})
	}
	running.Wait()
	p.note("%v", statuses)
}

func timeoutCases() []testCase {
	route := func(fields string) string { return `[{match: {prefix: /}, route: {cluster: "@a", ` + fields + `}}]` }
	within := func(p *probe, a answer, least, most time.Duration) {
		p.note("took between %s and %s: %v", least, most, a.took >= least && a.took <= most)
	}
	return []testCase{
		{name: "timeout", clusters: a(1, ""), routes: route(`timeout: 0.2s`), run: func(p *probe) {
			a := p.do(withHeaders("x-script: hang"))
			within(p, a, 190*time.Millisecond, time.Second)
			p.gotAll(a)
			p.do(withHeaders("x-script: 20ms"))
		}},
		{name: "timeout-post", clusters: a(1, ""), routes: route(`timeout: 0.2s`), run: func(p *probe) {
			p.do(request{method: "POST", body: "x", headers: []string{"x-script: hang"}})
		}},
		{name: "timeout-after-headers", clusters: a(1, ""), routes: route(`timeout: 0.2s`), run: func(p *probe) { p.do(withHeaders("x-script: stall")) }},
		{name: "timeout-off", clusters: a(1, ""), routes: route(`timeout: 0s`), run: func(p *probe) { p.do(withHeaders("x-script: 300ms")) }},
		{name: "timeout-per-try", clusters: a(1, ""), routes: route(`timeout: 2s, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.1s, retry_back_off: {base_interval: 0.001s}}`),
			run: func(p *probe) {
				p.do(withHeaders("x-script: hang,200"))
				a := p.do(withHeaders("x-script: hang"))
				within(p, a, 190*time.Millisecond, time.Second)
			}},
		{name: "timeout-per-try-no-retry", clusters: a(1, ""), routes: route(`timeout: 2s, retry_policy: {retry_on: connect-failure, num_retries: 1, per_try_timeout: 0.1s}`),
			run: func(p *probe) { p.do(withHeaders("x-script: hang,200")) }},
		{name: "timeout-per-try-on-gateway-error", clusters: a(1, ""), routes: route(`timeout: 2s, retry_policy: {retry_on: gateway-error, num_retries: 1, per_try_timeout: 0.1s, retry_back_off: {base_interval: 0.001s}}`),
			run: func(p *probe) { p.do(withHeaders("x-script: hang,200")) }},
		{name: "timeout-per-try-on-reset", clusters: a(1, ""), routes: route(`timeout: 2s, retry_policy: {retry_on: reset, num_retries: 1, per_try_timeout: 0.1s, retry_back_off: {base_interval: 0.001s}}`),
			run: func(p *probe) { p.do(withHeaders("x-script: hang,200")) }},
		{name: "timeout-beats-retries", clusters: a(1, ""), routes: route(`timeout: 0.25s, retry_policy: {retry_on: 5xx, num_retries: 10, per_try_timeout: 0.1s, retry_back_off: {base_interval: 0.001s}}`),
			run: func(p *probe) { p.do(withHeaders("x-script: hang")) }},
		{name: "timeout-per-try-idle", clusters: a(1, ""), routes: route(`timeout: 2s, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_idle_timeout: 0.2s, retry_back_off: {base_interval: 0.001s}}`),
			run: func(p *probe) { p.do(withHeaders("x-script: hang,200")) }},
		{name: "timeout-idle", clusters: a(1, ""), routes: route(`timeout: 3s, idle_timeout: 0.3s`), run: func(p *probe) {
			p.do(withHeaders("x-script: hang"))
			p.do(withHeaders("x-script: stall"))
		}},
		{name: "timeout-max-stream-duration", clusters: a(1, ""), routes: route(`timeout: 3s, max_stream_duration: {max_stream_duration: 0.2s}`), run: func(p *probe) {
			p.do(withHeaders("x-script: hang"))
		}},
		{name: "timeout-grpc", clusters: a(1, ""), routes: route(`timeout: 3s, max_stream_duration: {grpc_timeout_header_max: 0.2s}`), run: func(p *probe) {
			for _, asked := range []string{"10S", "100m"} {
				a := p.do(request{method: "POST", headers: []string{"x-script: 400ms", "grpc-timeout: " + asked}})
				within(p, a, 90*time.Millisecond, 390*time.Millisecond)
			}
		}},
		{name: "timeout-request-header", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(withHeaders("x-script: 400ms", "x-envoy-upstream-rq-timeout-ms: 100"))
			within(p, a, 90*time.Millisecond, 390*time.Millisecond)
		}},
		{name: "timeout-expected-header", clusters: a(1, ""), routes: route(`timeout: 5s`), run: func(p *probe) {
			p.saw(p.do(request{}), "X-Envoy-Expected-Rq-Timeout-Ms")
		}},
		{name: "timeout-request", listener: "slow", clusters: a(1, ""), run: func(p *probe) {
			a := p.send(request{raw: "POST / HTTP/1.1\nHost: timeout-request.test\nID\nContent-Length: 10\n\nabc"})
			p.note("%d %q", a.status, a.body)
			within(p, a, 250*time.Millisecond, 900*time.Millisecond)
			p.gotAll(a)
		}},
		{name: "timeout-stream-idle", listener: "slow", clusters: a(1, ""), routes: route(`timeout: 3s`), run: func(p *probe) {
			a := p.do(withHeaders("x-script: hang"))
			within(p, a, 500*time.Millisecond, 1500*time.Millisecond)
		}},
	}
}

var _ = fmt.Sprint
