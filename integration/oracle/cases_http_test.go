package oracle

import (
	"fmt"
	"slices"
	"strings"
)

func headerCases() []testCase {
	const all = `{response_headers_to_remove: [x-backend2], request_headers_to_remove: [x-remove], request_headers_to_add: [%s], response_headers_to_add: [{header: {key: x-resp, value: host}, append_action: APPEND_IF_EXISTS_OR_ADD}]}`
	option := func(key, value, action string) string {
		return fmt.Sprintf(`{header: {key: %s, value: %q}, append_action: %s}`, key, value, action)
	}
	four := strings.Join([]string{option("x-append", "new", "APPEND_IF_EXISTS_OR_ADD"), option("x-absent", "new", "ADD_IF_ABSENT"),
		option("x-over", "new", "OVERWRITE_IF_EXISTS_OR_ADD"), option("x-exists", "new", "OVERWRITE_IF_EXISTS")}, ", ")
	shown := []string{"X-Append", "X-Absent", "X-Over", "X-Exists", "X-Remove"}
	return []testCase{
		{name: "headers-plain", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(withHeaders("User-Agent: oracle", "Accept: */*", "X-Mixed-Case: Value", "x-twice: a", "x-twice: b", "x-empty:"))
			p.sawAll(a)
			p.gotAll(a)
		}},
		{name: "headers-actions", clusters: a(1, ""), host: fmt.Sprintf(all, four), run: func(p *probe) {
			a := p.do(request{})
			p.saw(a, shown...)
			p.got(a, "X-Resp")
			a = p.do(withHeaders("x-append: old", "x-absent: old", "x-over: old", "x-over: old2", "x-exists: old", "x-remove: old", "x-reply: x-resp: upstream|x-backend2: y"))
			p.saw(a, shown...)
			p.got(a, "X-Resp", "X-Backend2")
		}},
		{name: "headers-order-of-levels", clusters: a(1, ""),
			host:   `{request_headers_to_add: [{header: {key: x-l, value: host}}], response_headers_to_add: [{header: {key: x-l, value: host}}]}`,
			routes: `[{match: {prefix: /}, request_headers_to_add: [{header: {key: x-l, value: route}}], response_headers_to_add: [{header: {key: x-l, value: route}}], route: {weighted_clusters: {clusters: [{name: "@a", weight: 1, request_headers_to_add: [{header: {key: x-l, value: cluster}}], response_headers_to_add: [{header: {key: x-l, value: cluster}}]}]}}}]`,
			run: func(p *probe) {
				a := p.do(request{})
				p.saw(a, "X-L")
				p.got(a, "X-L")
			}},
		{name: "headers-remove-then-add", clusters: a(1, ""), host: `{request_headers_to_remove: [x-r], request_headers_to_add: [{header: {key: x-r, value: new}}]}`,
			run: func(p *probe) { p.saw(p.do(withHeaders("x-r: old")), "X-R") }},
		{name: "headers-request-id", clusters: a(1, ""), run: func(p *probe) {
			a := p.send(request{raw: "GET / HTTP/1.1\nHost: headers-request-id.test\nx-oracle: " + p.name() + "\n\n"})
			id := p.upstreams.attempts(p.name())[0].request.Header.Get("X-Request-Id")
			p.note("%d: made one of %d characters, version %s", a.status, len(id), id[14:15])
			p.saw(p.do(request{}), "X-Request-Id")
		}},
		{name: "headers-forwarded", clusters: a(1, ""), run: forwarded},
		{name: "headers-envoy-internal", clusters: a(1, ""), run: func(p *probe) {
			p.sawAll(p.do(withHeaders("x-envoy-internal: true", "x-envoy-external-address: 1.2.3.4", "x-envoy-decorator-operation: x", "x-envoy-expected-rq-timeout-ms: 5")))
		}},
		{name: "headers-hop-by-hop", clusters: a(1, ""), run: func(p *probe) {
			p.sawAll(p.do(withHeaders("Connection: x-nominated", "x-nominated: 1", "Keep-Alive: timeout=5", "TE: trailers", "Proxy-Authorization: secret")))
			p.sawAll(p.do(withHeaders("Proxy-Connection: keep-alive", "TE: gzip", "Upgrade: foo")))
			p.sawAll(p.do(withHeaders("TE: trailers, deflate;q=0.5", "Connection: te")))
			a := p.do(withHeaders("x-reply: Keep-Alive: timeout=5|Proxy-Authenticate: x|Connection: x-named|X-Named: 1"))
			p.gotAll(a)
		}},
		{name: "headers-client-cert", clusters: a(1, ""), run: func(p *probe) {
			p.saw(p.do(withHeaders("x-forwarded-client-cert: URI=spiffe://forged")), "X-Forwarded-Client-Cert")
		}},
		{name: "headers-underscore", clusters: a(1, ""), run: func(p *probe) { p.saw(p.do(withHeaders("x_under: 1")), "X_under") }},
		{name: "headers-server-name", listener: "edge", clusters: a(1, ""), run: func(p *probe) {
			p.got(p.do(request{}), "Server")
		}},
		{name: "headers-of-envoy", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{})
			p.got(a, "Server")
			p.note("service time: %v", len(a.headers.Values("X-Envoy-Upstream-Service-Time")) == 1)
			p.note("dated: %v", len(a.headers.Values("Date")) == 1)
			a = p.do(withHeaders("x-reply: Server: own|Date: Sat, 21 Nov 2026 00:00:00 GMT"))
			p.got(a, "Server", "Date")
			a = p.do(request{host: "nobody.test"})
			p.note("dated: %v", len(a.headers.Values("Date")) == 1)
		}},
		{name: "headers-substitution", clusters: a(1, ""), host: `{request_headers_to_add: [{header: {key: x-p, value: "100%%"}}]}`,
			run: func(p *probe) { p.saw(p.do(request{}), "X-P") }},
	}
}

// name of the next request.
func (p *probe) name() string { return fmt.Sprintf("%s.%s.raw", p.test.name, p.side.name) }

func forwarded(p *probe) {
	show := []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Envoy-External-Address", "X-Envoy-Internal", "Forwarded"}
	p.saw(p.do(request{from: "127.45.0.77"}), show...)
	p.saw(p.do(request{from: "127.45.0.77", headers: []string{"x-forwarded-for: 10.1.1.1", "x-forwarded-proto: https", "x-forwarded-host: h", "x-forwarded-port: 1"}}), show...)
	p.saw(p.do(request{from: "127.45.0.77", headers: []string{"x-forwarded-for: 1.2.3.4, 5.6.7.8", "x-forwarded-proto: bogus"}}), show...)
}

func bodyCases() []testCase {
	return []testCase{
		{name: "body-content-length", clusters: a(1, ""), run: func(p *probe) {
			for _, method := range []string{"POST", "PUT", "GET", "DELETE", "OPTIONS", "PATCH", "X-OWN"} {
				p.saw(p.do(request{method: method, body: "payload"}), "Content-Length", "Transfer-Encoding")
			}
		}},
		{name: "body-chunked", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{raw: "POST / HTTP/1.1\nHost: body-chunked.test\nID\nTransfer-Encoding: chunked\n\n3;ext=1\nabc\n2\nde\n0\n\n"})
			p.note("%d", len(p.upstreams.attempts(p.id())))
			p.sawID(a)
		}},
		{name: "body-chunked-trailers", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{raw: "POST / HTTP/1.1\nHost: body-chunked-trailers.test\nID\nTransfer-Encoding: chunked\nTrailer: x-t\n\n3\nabc\n0\nx-t: yes\n\n"})
			p.sawID(a)
			last := p.upstreams.attempts(p.id())
			if len(last) > 0 {
				p.note("trailers %v", last[0].request.Trailer)
			}
		}},
		{name: "body-response-trailers", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(withHeaders("x-script: trailers", "TE: trailers"))
			p.note("body %q trailers %v", a.body, a.trailer)
		}},
		{name: "body-empty-post", clusters: a(1, ""), run: func(p *probe) {
			p.saw(p.do(request{method: "POST"}), "Content-Length", "Transfer-Encoding")
			p.saw(p.do(request{method: "POST", headers: []string{"Content-Length: 0"}}), "Content-Length", "Transfer-Encoding")
			p.saw(p.do(request{method: "GET", headers: []string{"Content-Length: 0"}}), "Content-Length", "Transfer-Encoding")
		}},
		{name: "body-head-204-304", clusters: a(1, ""), run: func(p *probe) {
			p.gotAll(p.do(request{method: "HEAD"}))
			p.gotAll(p.do(request{method: "HEAD", headers: []string{"x-reply: Content-Length: 77"}}))
			p.gotAll(p.do(withHeaders("x-script: 204")))
			p.gotAll(p.do(withHeaders("x-script: 304", "x-reply: ETag: x")))
		}},
		{name: "body-expect-continue", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{raw: "POST / HTTP/1.1\nHost: body-expect-continue.test\nID\nExpect: 100-continue\nContent-Length: 3\n\n", then: "abc"})
			p.sawID(a, "Expect", "Content-Length")
		}},
		{name: "body-expect-continue-refused", routes: `[{match: {prefix: /}, direct_response: {status: 403}}]`, run: func(p *probe) {
			p.gotAll(p.do(request{raw: "POST / HTTP/1.1\nHost: body-expect-continue-refused.test\nID\nExpect: 100-continue\nContent-Length: 3\n\n", then: "abc"}))
		}},
		{name: "body-expect-other", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{method: "POST", body: "abc", headers: []string{"Expect: something"}})
			p.saw(a, "Expect")
		}},
		{name: "body-early-hints", clusters: a(1, ""), run: func(p *probe) { p.gotAll(p.do(withHeaders("x-script: hints"))) }},
		{name: "body-http10", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{raw: "GET / HTTP/1.0\nHost: body-http10.test\nID\n\n"})
			p.sawID(a)
			p.gotAll(a)
			p.do(request{raw: "GET / HTTP/1.0\nID\n\n"})
		}},
		{name: "body-connection-close", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(withHeaders("Connection: close"))
			p.note("closed %v", a.closed)
			p.saw(a, "Connection")
			a = p.do(withHeaders("x-reply: Connection: close"))
			p.note("closed %v", a.closed)
		}},
		{name: "body-websocket", listener: "upgrades", clusters: a(1, ""), run: func(p *probe) {
			a := p.send(request{headers: []string{"x-script: echo", "Connection: Upgrade", "Upgrade: websocket"}, then: "ping"})
			p.note("%d, echo %q", a.status, a.body)
			p.saw(a, "Upgrade")
			p.got(a, "Upgrade")
		}},
		{name: "body-websocket-refused", listener: "upgrades", clusters: a(1, ""), run: func(p *probe) {
			p.gotAll(p.do(request{headers: []string{"x-script: 403", "Connection: Upgrade", "Upgrade: websocket"}}))
		}},
		{name: "body-websocket-off", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{headers: []string{"x-script: echo", "Connection: Upgrade", "Upgrade: websocket"}, then: "ping"})
			p.gotAll(a)
		}},
		{name: "body-websocket-route", clusters: a(1, ""), routes: `[{match: {prefix: /}, route: {cluster: "@a", upgrade_configs: [{upgrade_type: websocket}]}}]`, run: func(p *probe) {
			a := p.send(request{headers: []string{"x-script: echo", "Connection: Upgrade", "Upgrade: websocket"}, then: "ping"})
			p.note("%d, echo %q", a.status, a.body)
		}},
		{name: "body-connect", clusters: a(1, ""), run: func(p *probe) {
			p.gotAll(p.do(request{raw: "CONNECT body-connect.test:80 HTTP/1.1\nHost: body-connect.test:80\nID\n\n"}))
		}},
		{name: "body-pipelined", clusters: a(1, ""), run: func(p *probe) {
			one := "GET /1 HTTP/1.1\r\nHost: body-pipelined.test\r\nx-oracle: " + p.name() + "\r\n\r\n"
			p.send(request{}) // dials
			first := p.link.roundTrip([]byte(one+strings.Replace(one, "/1", "/2", 1)), "GET", "")
			second := p.link.roundTrip(nil, "GET", "")
			p.note("%d %d", first.status, second.status)
			for _, s := range p.upstreams.attempts(p.name()) {
				p.note("upstream saw %s", s.request.URL.Path)
			}
		}},
	}
}

// id of the last request.
func (p *probe) id() string { return fmt.Sprintf("%s.%s.%d", p.test.name, p.side.name, p.requests) }

func (p *probe) sawID(a answer, names ...string) {
	a.id = p.id()
	p.saw(a, append([]string{"Content-Length", "Transfer-Encoding"}, names...)...)
}

func badRequestCases() []testCase {
	const get, post = "GET / HTTP/1.1\nHost: bad.test\nID\n", "POST / HTTP/1.1\nHost: bad.test\nID\n"
	bad := map[string]string{
		"smuggle-cl-te":          post + "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
		"smuggle-two-cl":         post + "Content-Length: 1\nContent-Length: 2\n\nab",
		"smuggle-two-equal-cl":   post + "Content-Length: 1\nContent-Length: 1\n\na",
		"smuggle-cl-list":        post + "Content-Length: 1, 1\n\na",
		"smuggle-cl-plus":        post + "Content-Length: +1\n\na",
		"smuggle-cl-space":       post + "Content-Length : 1\n\na",
		"smuggle-te-list":        post + "Transfer-Encoding: gzip, chunked\n\n0\n\n",
		"smuggle-te-identity":    post + "Transfer-Encoding: identity\n\n",
		"smuggle-te-odd":         post + "Transfer-Encoding: xchunked\n\n0\n\n",
		"smuggle-te-twice":       post + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
		"smuggle-te-10":          "POST / HTTP/1.0\nHost: bad.test\nID\nTransfer-Encoding: chunked\n\n0\n\n",
		"smuggle-obs-fold":       get + "x-a: b\n c\n\n",
		"smuggle-bare-lf":        "GET / HTTP/1.1\r\nHost: bad.test\nID\r\n\r\n",
		"smuggle-bare-cr":        "GET / HTTP/1.1\r\nHost: bad.test\r\nID\r\nx-a: b\rc\r\n\r\n",
		"smuggle-chunk-size":     post + "Transfer-Encoding: chunked\n\n-1\na\n0\n\n",
		"smuggle-chunk-huge":     post + "Transfer-Encoding: chunked\n\nffffffffffffffffff\na\n0\n\n",
		"smuggle-chunk-no-crlf":  post + "Transfer-Encoding: chunked\n\n1\nabc0\n\n",
		"smuggle-trailer-cl":     post + "Transfer-Encoding: chunked\n\n1\na\n0\nContent-Length: 5\n\n",
		"bad-nul-in-value":       get + "x-a: b\x00c\n\n",
		"bad-control-in-value":   get + "x-a: b\x01c\n\n",
		"bad-del-in-value":       get + "x-a: b\x7fc\n\n",
		"bad-utf8-in-value":      get + "x-a: é\n\n",
		"bad-space-in-name":      get + "x a: b\n\n",
		"bad-empty-name":         get + ": b\n\n",
		"bad-no-colon":           get + "xa\n\n",
		"bad-no-host":            "GET / HTTP/1.1\nID\n\n",
		"bad-two-hosts":          get + "Host: other.test\n\n",
		"bad-empty-host":         "GET / HTTP/1.1\nHost:\nID\n\n",
		"bad-host-characters":    "GET / HTTP/1.1\nHost: bad.test/x\nID\n\n",
		"bad-method":             "G@T / HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-lower-method":       "get / HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-version":            "GET / HTTP/1.2\nHost: bad.test\nID\n\n",
		"bad-version-2":          "GET / HTTP/2.0\nHost: bad.test\nID\n\n",
		"bad-version-09":         "GET /\n\n",
		"bad-target-relative":    "GET x HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-target-space":       "GET /a b HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-target-control":     "GET /a\x01b HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-target-utf8":        "GET /é HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-target-fragment":    "GET /a#b HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-target-nul-escape":  "GET /a%00b HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-target-half-escape": "GET /a%4 HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-options-star":       "OPTIONS * HTTP/1.1\nHost: bad.test\nID\n\n",
		"bad-leading-crlf":       "\n" + get + "\n",
		"bad-tls":                "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
	}
	var names []string
	for name := range bad {
		names = append(names, name)
	}
	slices.Sort(names)
	out := []testCase{{name: "bad", clusters: a(1, "")}} // whose virtual host the others use
	for _, name := range names {
		out = append(out, testCase{name: name, run: func(p *probe) {
			a := p.send(request{raw: bad[name]})
			p.note("%d, closed %v", a.status, a.closed)
			if a.status == 200 { // else what the upstream sees before the error is chance
				p.sawID(a, "X-A")
			}
		}})
	}
	return out
}

func http2Cases() []testCase {
	const upstream2 = `{typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}`
	grpc := func(script string) request {
		return request{h2: true, method: "POST", path: "/pkg.Service/Method", headers: []string{"content-type: application/grpc", "te: trailers", "x-script: " + script}}
	}
	status := []string{"Content-Type", "Grpc-Status", "Grpc-Message"}
	return []testCase{
		{name: "http2-both", clusters: a(1, upstream2), run: func(p *probe) {
			a := p.do(request{h2: true, path: "/x?y", headers: []string{"x-mixed: 1", "cookie: a=1", "cookie: b=2"}})
			p.saw(a)
			p.sawAll(a)
			p.gotAll(a)
			p.saw(p.do(request{h2: true, method: "POST", body: "payload"}), "Content-Length")
		}},
		{name: "http2-upstream-only", clusters: a(1, upstream2), run: func(p *probe) {
			a := p.do(request{path: "/x", headers: []string{"x-mixed: 1", "connection: x-hop", "x-hop: 1"}})
			p.saw(a)
			p.sawAll(a)
			p.gotAll(a)
			p.gotAll(p.do(request{method: "HEAD"}))
			p.saw(p.do(request{method: "POST", body: "payload"}), "Content-Length")
			p.gotAll(p.do(withHeaders("x-script: 204")))
			p.gotAll(p.do(withHeaders("x-script: reset")))
		}},
		{name: "http2-upstream-only-retry", clusters: a(1, upstream2), host: `{include_request_attempt_count: true}`,
			routes: `[{match: {prefix: /}, route: {cluster: "@a", timeout: 2s, retry_policy: {retry_on: "5xx", num_retries: 2, per_try_timeout: 0.2s, retry_back_off: {base_interval: 0.001s}}}}]`,
			run: func(p *probe) {
				for _, script := range []string{"503,200", "reset,200", "hang,200", "503", "reset", "hang"} {
					p.saw(p.do(withHeaders("x-script: "+script)), "X-Envoy-Attempt-Count")
				}
			}},
		{name: "http2-downstream-only", clusters: a(1, ""), run: func(p *probe) {
			a := p.do(request{h2: true, path: "/x"})
			p.saw(a)
			p.gotAll(a)
		}},
		{name: "http2-no-route", routes: `[{match: {prefix: /x}, direct_response: {status: 200, body: {inline_string: x}}}]`, run: func(p *probe) {
			p.gotAll(p.do(request{h2: true}))
			p.gotAll(p.do(request{h2: true, path: "/x"}))
		}},
		{name: "http2-retry", clusters: a(1, upstream2), host: `{include_request_attempt_count: true}`,
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: "5xx", num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}]`,
			run: func(p *probe) {
				for _, script := range []string{"503,200", "reset,200", "503", "reset"} {
					p.saw(p.do(request{h2: true, headers: []string{"x-script: " + script}}), "X-Envoy-Attempt-Count")
				}
			}},
		{name: "http2-reset", clusters: a(1, upstream2), run: func(p *probe) { p.gotAll(p.do(request{h2: true, headers: []string{"x-script: reset"}})) }},
		{name: "http2-timeout", clusters: a(1, upstream2), routes: `[{match: {prefix: /}, route: {cluster: "@a", timeout: 0.2s}}]`,
			run: func(p *probe) { p.gotAll(p.do(request{h2: true, headers: []string{"x-script: hang"}})) }},
		{name: "http2-trailers", clusters: a(1, upstream2), run: func(p *probe) {
			a := p.do(request{h2: true, headers: []string{"x-script: trailers"}})
			p.note("body %q trailers %v", a.body, a.trailer)
		}},
		{name: "grpc-local-replies", clusters: []cluster{{name: "a", yaml: upstream2, at: []locality{{up: 1}}}, {name: "none", yaml: upstream2}, {name: "down", yaml: upstream2, at: []locality{{refusing: 1}}}},
			routes: `[{match: {prefix: /none}, route: {cluster: "@none"}}, {match: {prefix: /down}, route: {cluster: "@down"}}, {match: {prefix: /gone}, route: {cluster: "@gone"}}, {match: {prefix: /slow}, route: {cluster: "@a", timeout: 0.1s}},
				{match: {prefix: /deny}, direct_response: {status: 403, body: {inline_string: "no entry"}}}, {match: {prefix: /limit}, direct_response: {status: 429}}]`,
			run: func(p *probe) {
				for _, path := range []string{"/none", "/down", "/gone", "/slow", "/deny", "/limit", "/nowhere"} {
					r := grpc("hang")
					r.path = path
					p.got(p.do(r), status...)
				}
			}},
		{name: "grpc-retry-on-status", clusters: a(1, upstream2),
			routes: `[{match: {prefix: /}, route: {cluster: "@a", retry_policy: {retry_on: "unavailable,cancelled", num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}]`,
			run: func(p *probe) {
				r := grpc("200")
				r.headers = append(r.headers, "x-reply: grpc-status: 14")
				p.got(p.do(r), status...)
				r = grpc("200")
				r.headers = append(r.headers, "x-reply: grpc-status: 5")
				p.got(p.do(r), status...)
			}},
		{name: "grpc-over-http1-local-reply", clusters: a(0, ""), run: func(p *probe) {
			p.gotAll(p.do(withHeaders("content-type: application/grpc")))
		}},
	}
}
