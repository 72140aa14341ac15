package oracle

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var (
	update   = flag.Bool("update", false, "write what differs in the accepted cases to testdata")
	printing = flag.Bool("print", false, "print what Envoy did in each case")
)

// The reasons that several cases share.
const (
	stricter = "what two parsers may read in two ways is refused with 400, as RFC 9112 allows, so that nothing can be smuggled past a policy"
	statuses = "both refuse it; every malformed request is answered 400 here"
	normal   = "paths are always normalised before they are matched and authorised, and escaped slashes refused, whatever normalize_path says: a policy cannot be walked around"
	trailers = "HTTP/1.1 trailers are passed on; Envoy drops them unless enable_trailers is set"
	overHTTP = "gRPC is answered in its own terms over HTTP/2 alone, which it needs; over HTTP/1.1 such a request is like any other"
	headers  = "the sidecar adds no header that only says which proxy was passed, or when"
)

// accepted are the cases that differ on purpose, with the reason. What exactly differs is in testdata, and
// docs/envoy-parity.md lists them too.
var accepted = map[string]string{
	"bad-empty-host":                     stricter,
	"bad-leading-crlf":                   stricter,
	"bad-lower-method":                   "methods are open (RFC 9110, section 16.1): any token is forwarded, Envoy knows a list",
	"bad-target-half-escape":             statuses + ", and closes",
	"bad-target-nul-escape":              normal,
	"bad-two-hosts":                      stricter,
	"bad-version":                        statuses,
	"bad-version-09":                     statuses,
	"bad-version-2":                      statuses,
	"body-chunked-trailers":              trailers,
	"body-connect":                       statuses,
	"body-content-length":                "methods are open (RFC 9110, section 16.1): any token is forwarded, Envoy knows a list",
	"body-early-hints":                   "103 is passed on (RFC 8297); Envoy drops it unless asked",
	"body-empty-post":                    "a request without a body is sent on as it came; Envoy adds Content-Length: 0",
	"body-expect-continue-refused":       "a body that nobody wants is not asked for",
	"body-expect-other":                  "an expectation that is not known is refused with 400, Envoy says 417",
	"body-http10":                        "HTTP/1.0 is served; Envoy only with accept_http_10",
	"body-response-trailers":             trailers,
	"body-websocket-off":                 "websockets need no upgrade_configs",
	"breaker-max-connections-no-pending": "a request is pending when it waits for a connection of another; in Envoy also while its own is made, so that with 0 none is ever served",
	"domains-absolute-form-other-host":   stricter,
	"drop-overload-all":                  "100 % is a drop like any other: flag DO; Envoy calls it unconditional",
	"grpc-over-http1-local-reply":        overHTTP,
	"headers-hop-by-hop":                 "what concerns one hop ends there (RFC 9110, section 7.6.1), also what a response's Connection names, TE and proxy credentials",
	"headers-of-envoy":                   headers,
	"headers-server-name":                headers,
	"http2-no-route":                     "an empty body is said to be empty",
	"kept-connection-dies":               "an idempotent request on a kept connection that dies unanswered is sent again once (RFC 9110, section 9.2.2), without a retry policy",
	"path-dots":                          normal,
	"path-escapes":                       normal,
	"priority-degraded-only":             "degraded hosts serve under ring hash and Maglev too; Envoy puts none into its table and answers 503",
	"route-grpc":                         overHTTP,
	"smuggle-bare-cr":                    stricter,
	"smuggle-bare-lf":                    stricter,
	"smuggle-obs-fold":                   stricter,
	"smuggle-te-10":                      statuses,
	"smuggle-te-identity":                statuses,
	"smuggle-te-list":                    statuses,
	"smuggle-te-odd":                     statuses,
	"smuggle-te-twice":                   statuses,
	"timeout-expected-header":            headers,
	"upstream-half-a-response":           "the flag says what happened, the upstream hung up (UC); Envoy calls it a protocol error",
	"upstream-odd-heads":                 "a response that could be read in two ways, or was not asked for (101), is answered 502",
}

func acceptedFile(name string) string { return filepath.Join("testdata", name+".diff") }

func readAccepted(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(acceptedFile(name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(data), "\n")
}

func writeAccepted(t *testing.T, name, difference string) {
	t.Helper()
	if err := os.WriteFile(acceptedFile(name), []byte(difference+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every accepted case exists, and users can read of it.
func TestAcceptedIsDocumented(t *testing.T) {
	docs, err := os.ReadFile("../../docs/envoy-parity.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range allCases() {
		if names[c.name] {
			t.Errorf("two cases are named %s", c.name)
		}
		names[c.name] = true
	}
	for name := range accepted {
		if !names[name] {
			t.Errorf("%s is accepted, but there is no such case", name)
		}
		if !strings.Contains(string(docs), "`"+name+"`") {
			t.Errorf("docs/envoy-parity.md does not mention `%s`", name)
		}
	}
}
