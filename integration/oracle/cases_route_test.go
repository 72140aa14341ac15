package oracle

import "fmt"

// say is a route's action that answers with its name.
func say(name string) string {
	return `direct_response: {status: 200, body: {inline_string: "` + name + `"}}`
}

// matchCase has routes that say their names, and requests to see which is taken.
func matchCase(name, routes string, requests ...request) testCase {
	return testCase{name: name, routes: routes, run: func(p *probe) {
		for _, r := range requests {
			p.note("%v", r.headers)
			p.do(r)
		}
	}}
}

func paths(list ...string) (out []request) {
	for _, path := range list {
		out = append(out, request{path: path})
	}
	return out
}

// headerMatch is a case of one header matcher of x-h, against these values; "-" is no header.
func headerMatch(name, matcher string, values ...string) testCase {
	routes := `[{match: {prefix: /, headers: [` + matcher + `]}, ` + say("yes") + `}, {match: {prefix: /}, ` + say("no") + `}]`
	var requests []request
	for _, v := range values {
		if v == "-" {
			requests = append(requests, request{})
			continue
		}
		requests = append(requests, withHeaders("x-h: "+v))
	}
	return matchCase(name, routes, requests...)
}

func pathMatch(name, match string, list ...string) testCase {
	return matchCase(name, `[{match: {`+match+`}, `+say("yes")+`}, {match: {prefix: /}, `+say("no")+`}]`, paths(list...)...)
}

func matchCases() []testCase {
	return []testCase{
		pathMatch("path-exact", `path: /a`, "/a", "/a/", "/a?x=1", "/A", "/ab"),
		pathMatch("path-escapes", `path: /a`, "/%61", "/a%2f", "/a%2Fb", "/%2561"),
		pathMatch("path-prefix", `prefix: /a`, "/a", "/a/b", "/ab", "/A", "/?/a"),
		pathMatch("path-separated-prefix", `path_separated_prefix: /a/b`, "/a/b", "/a/b/", "/a/bc", "/a/b?c", "/a/B", "/a"),
		pathMatch("path-regex", `safe_regex: {regex: "/v[0-9]+/.*"}`, "/v1/x", "/v1/", "/v/x", "/a/v1/x", "/v1/x?y", "/V1/x"),
		pathMatch("path-ignore-case", `path: /Abc, case_sensitive: false`, "/abc", "/ABC", "/abcd"),
		pathMatch("path-prefix-ignore-case", `prefix: /Abc, case_sensitive: false`, "/abc/d", "/ABCd", "/ab"),
		pathMatch("path-dots", `prefix: /a/b`, "/a/x/../b", "/a//b", "/a/./b", "/a/b/../c", "/a\\b"),
		{name: "path-dots-normalized", listener: "edge", routes: `[{match: {prefix: /a/b}, ` + say("yes") + `}, {match: {prefix: /}, ` + say("no") + `}]`,
			run: func(p *probe) {
				for _, r := range paths("/a/x/../b", "/a//b", "/a/./b", "/a/b/../c", "/a/%62", "/%61/b", "/a/b/../../../c", "/a/b/..", "/a/%7eb") {
					p.do(r)
				}
			}},
		headerMatch("header-exact", `{name: x-h, string_match: {exact: v}}`, "v", "V", "v2", "-", " v ", ""),
		headerMatch("header-exact-ignore-case", `{name: x-h, string_match: {exact: Val, ignore_case: true}}`, "val", "VAL", "v"),
		headerMatch("header-prefix", `{name: x-h, string_match: {prefix: ab}}`, "ab", "abc", "a", "-"),
		headerMatch("header-suffix", `{name: x-h, string_match: {suffix: yz}}`, "yz", "xyz", "yzz", "-"),
		headerMatch("header-contains", `{name: x-h, string_match: {contains: lm}}`, "klmn", "lm", "l-m", "-"),
		headerMatch("header-regex", `{name: x-h, string_match: {safe_regex: {regex: "a+b?"}}}`, "aab", "aa", "aabc", "b", "-"),
		headerMatch("header-present", `{name: x-h, present_match: true}`, "x", "", "-"),
		headerMatch("header-absent", `{name: x-h, present_match: false}`, "x", "-"),
		headerMatch("header-invert", `{name: x-h, string_match: {exact: v}, invert_match: true}`, "v", "w", "-"),
		matchCase("header-invert-twice", `[{match: {prefix: /, headers: [{name: x-h, string_match: {exact: v}, invert_match: true}]}, `+say("yes")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			withHeaders("x-h: v", "x-h: w"), withHeaders("x-h: w", "x-h: v"), withHeaders("x-h: w", "x-h: w"), withHeaders("x-h: v", "x-h: v")),
		matchCase("header-regex-twice", `[{match: {prefix: /, headers: [{name: x-h, string_match: {safe_regex: {regex: "a.*b"}}}]}, `+say("yes")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			withHeaders("x-h: a", "x-h: b"), withHeaders("x-h: c", "x-h: ab"), withHeaders("x-h: a,b")),
		headerMatch("header-invert-missing-empty", `{name: x-h, string_match: {exact: v}, invert_match: true, treat_missing_header_as_empty: true}`, "v", "w", "-"),
		headerMatch("header-missing-as-empty", `{name: x-h, string_match: {exact: ""}, treat_missing_header_as_empty: true}`, "v", "-"),
		headerMatch("header-range", `{name: x-h, range_match: {start: -10, end: 10}}`, "-10", "9", "10", "-11", "x", "9x", "-", " 5", "+5", "1.0"),
		headerMatch("header-and", `{name: x-h, string_match: {prefix: a}}, {name: x-h, string_match: {suffix: b}}`, "ab", "a", "b"),
		matchCase("header-twice", `[{match: {prefix: /, headers: [{name: x-h, string_match: {exact: "a,b"}}]}, `+say("joined")+`}, {match: {prefix: /, headers: [{name: x-h, string_match: {exact: a}}]}, `+say("first")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			withHeaders("x-h: a", "x-h: b"), withHeaders("x-h: a, b"), withHeaders("x-h: a", "x-h: a"), withHeaders("x-h: a")),
		matchCase("header-pseudo", `[{match: {prefix: /, headers: [{name: ":method", string_match: {exact: POST}}]}, `+say("post")+`}, {match: {prefix: /, headers: [{name: ":authority", string_match: {prefix: header-pseudo}}, {name: ":path", string_match: {exact: "/q?x=1"}}]}, `+say("path")+`},
			{match: {prefix: /, headers: [{name: ":scheme", string_match: {exact: http}}]}, `+say("scheme")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			request{method: "POST"}, request{path: "/q?x=1"}, request{path: "/q"}),
		matchCase("header-host", `[{match: {prefix: /, headers: [{name: host, string_match: {exact: header-host.test}}]}, `+say("yes")+`}, {match: {prefix: /}, `+say("no")+`}]`, request{}),
		matchCase("query", `[{match: {prefix: /, query_parameters: [{name: v, string_match: {exact: "2"}}]}, `+say("two")+`}, {match: {prefix: /, query_parameters: [{name: v, present_match: true}]}, `+say("any")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			paths("/?v=2", "/?v=3", "/?v", "/?v=", "/?w=2", "/?w=1&v=2", "/?V=2", "/?v=2&v=3", "/?v=3&v=2", "/?v=%32", "/?a;v=2")...),
		matchCase("query-present-false", `[{match: {prefix: /, query_parameters: [{name: v, present_match: false}]}, `+say("absent")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			paths("/?v=2", "/", "/?v")...),
		matchCase("route-order", `[{match: {prefix: /a}, `+say("first")+`}, {match: {path: /a}, `+say("second")+`}, {match: {prefix: /}, `+say("third")+`}]`, paths("/a", "/b")...),
		matchCase("route-fraction", `[{match: {prefix: /, runtime_fraction: {default_value: {numerator: 0}}}, `+say("never")+`}, {match: {prefix: /, runtime_fraction: {default_value: {numerator: 100}}}, `+say("always")+`}, {match: {prefix: /}, `+say("rest")+`}]`, paths("/", "/", "/")...),
		matchCase("route-grpc", `[{match: {prefix: /, grpc: {}}, `+say("grpc")+`}, {match: {prefix: /}, `+say("no")+`}]`,
			withHeaders("content-type: application/grpc"), withHeaders("content-type: application/grpc+proto"), withHeaders("content-type: application/grpcx"), withHeaders("content-type: text/plain")),
		matchCase("no-route", `[{match: {prefix: /only}, `+say("x")+`}]`, paths("/only", "/other")...),
		{name: "no-host", run: func(p *probe) { p.gotAll(p.do(request{host: "nobody.example"})) }},
		{name: "domains", domains: []string{"one.domains", "two.domains:8080", "*.suffix.domains", "*.longer.suffix.domains", "prefix.*", "*-x.domains"}, routes: `[{match: {prefix: /}, ` + say("here") + `}]`,
			run: func(p *probe) {
				for _, host := range []string{"one.domains", "ONE.Domains", "one.domains:80", "two.domains", "two.domains:8080", "a.suffix.domains", "suffix.domains", ".suffix.domains",
					"b.a.suffix.domains", "a.suffix.domains:80", "prefix.any", "prefix.", "prefix", "a-x.domains", "one.domains."} {
					p.note("%s", host)
					p.do(request{host: host})
				}
			}},
		{name: "domains-absolute-form", clusters: a(1, ""), run: func(p *probe) {
			p.saw(p.do(request{raw: "GET http://domains-absolute-form.test/x?y HTTP/1.1\nHost: domains-absolute-form.test\nID\n\n"}))
			p.saw(p.do(request{raw: "GET http://domains-absolute-form.test HTTP/1.1\nHost: domains-absolute-form.test\nID\n\n"}))
			p.saw(p.do(request{raw: "GET https://domains-absolute-form.test/x HTTP/1.1\nHost: domains-absolute-form.test\nID\n\n"}), "X-Forwarded-Proto")
		}},
		{name: "domains-absolute-form-other-host", clusters: a(1, ""), run: func(p *probe) {
			p.saw(p.do(request{raw: "GET http://domains-absolute-form-other-host.test/x HTTP/1.1\nHost: other.test\nID\n\n"}))
		}},
	}
}

func rewriteCases() []testCase {
	forward := func(match, action string) string {
		return fmt.Sprintf(`[{match: {%s}, route: {cluster: "@a"%s}}]`, match, action)
	}
	return []testCase{
		{name: "rewrite-prefix", clusters: a(1, ""), routes: forward(`prefix: /old`, `, prefix_rewrite: /new`), run: rewrites("/old", "/old/x?y=1", "/older")},
		{name: "rewrite-prefix-root", clusters: a(1, ""), routes: forward(`prefix: /old`, `, prefix_rewrite: /`), run: rewrites("/old", "/old/x", "/old?q")},
		{name: "rewrite-prefix-slash", clusters: a(1, ""), routes: forward(`prefix: /old/`, `, prefix_rewrite: /`), run: rewrites("/old/", "/old/x")},
		{name: "rewrite-separated-prefix", clusters: a(1, ""), routes: forward(`path_separated_prefix: /old`, `, prefix_rewrite: /new`), run: rewrites("/old", "/old/x")},
		{name: "rewrite-exact", clusters: a(1, ""), routes: forward(`path: /old`, `, prefix_rewrite: /new`), run: rewrites("/old", "/old?x")},
		{name: "rewrite-ignore-case", clusters: a(1, ""), routes: forward(`prefix: /old, case_sensitive: false`, `, prefix_rewrite: /new`), run: rewrites("/OLD/x")},
		{name: "rewrite-regex", clusters: a(1, ""), routes: forward(`prefix: /`, `, regex_rewrite: {pattern: {regex: "/(\\w+)/(\\d+)"}, substitution: "/\\2/\\1$"}`), run: rewrites("/ab/12/x?q=/a/1", "/ab", "/a/1/b/2")},
		{name: "rewrite-host", clusters: a(1, ""), routes: forward(`prefix: /`, `, host_rewrite_literal: other.example`), run: func(p *probe) {
			a := p.do(request{path: "/x"})
			p.saw(a)
			p.sawAll(a)
		}},
		{name: "rewrite-append-forwarded-host", clusters: a(1, ""), routes: forward(`prefix: /`, `, host_rewrite_literal: other.example, append_x_forwarded_host: true`),
			run: func(p *probe) { p.saw(p.do(request{}), "X-Forwarded-Host") }},
		{name: "redirect", routes: `[{match: {prefix: /https}, redirect: {https_redirect: true}}, {match: {prefix: /host}, redirect: {host_redirect: other.example, response_code: FOUND}},
			{match: {prefix: /path}, redirect: {path_redirect: /elsewhere, response_code: SEE_OTHER}}, {match: {prefix: /prefix}, redirect: {prefix_rewrite: /p, response_code: TEMPORARY_REDIRECT}},
			{match: {prefix: /port}, redirect: {port_redirect: 8443, response_code: PERMANENT_REDIRECT}}, {match: {prefix: /strip}, redirect: {host_redirect: other.example, strip_query: true}},
			{match: {prefix: /pq}, redirect: {path_redirect: "/q?z=1"}}]`,
			run: func(p *probe) {
				for _, r := range paths("/https/x?y", "/host?q=1", "/path/x?q=1", "/prefix/x?q=1", "/port", "/strip/x?q=1", "/pq?a=b") {
					p.got(p.do(r), "Location", "Content-Length")
				}
				p.got(p.do(request{path: "/port", host: "redirect.test:80"}), "Location")
			}},
		{name: "redirect-ports", domains: []string{"redirect-ports.test", "redirect-ports.test:80", "redirect-ports.test:8080"},
			routes: `[{match: {prefix: /https}, redirect: {https_redirect: true}}, {match: {prefix: /port}, redirect: {port_redirect: 8443}}, {match: {prefix: /scheme}, redirect: {scheme_redirect: https}}]`,
			run: func(p *probe) {
				for _, host := range []string{"redirect-ports.test:80", "redirect-ports.test:8080"} {
					for _, path := range []string{"/https", "/port", "/scheme"} {
						p.got(p.do(request{path: path, host: host}), "Location")
					}
				}
			}},
		{name: "direct-response", routes: `[{match: {prefix: /body}, direct_response: {status: 418, body: {inline_string: short}}}, {match: {prefix: /}, direct_response: {status: 204}}]`,
			host: `{response_headers_to_add: [{header: {key: x-added, value: v}}]}`,
			run: func(p *probe) {
				p.gotAll(p.do(request{path: "/body"}))
				p.gotAll(p.do(request{path: "/body", method: "HEAD"}))
				p.gotAll(p.do(request{path: "/none"}))
				p.gotAll(p.do(request{path: "/body", method: "POST", body: "unwanted"}))
			}},
		{name: "non-forwarding", routes: `[{match: {prefix: /}, non_forwarding_action: {}}]`, run: func(p *probe) { p.gotAll(p.do(request{})) }},
	}
}

func rewrites(list ...string) func(*probe) {
	return func(p *probe) {
		for _, r := range paths(list...) {
			p.saw(p.do(r), "X-Envoy-Original-Path")
		}
	}
}
