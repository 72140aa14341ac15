package policy

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	istio "istio.io/api/networking/v1alpha3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

var headerFields = []string{"request.set", "request.add", "request.remove", "response.set", "response.add", "response.remove"}

var virtualService = kind{
	name: mesh.KindVirtualService, group: "networking.istio.io", versions: []string{"v1", "v1beta1", "v1alpha3"},
	message: func() proto.Message { return new(istio.VirtualService) },
	supported: concat([]string{
		"hosts", "gateways", "exportTo", "http.name",
		"http.match.name", "http.match.uri", "http.match.ignoreUriCase", "http.match.method", "http.match.authority",
		"http.match.headers", "http.match.withoutHeaders", "http.match.queryParams", "http.match.port",
		"http.route.destination.host", "http.route.destination.subset", "http.route.destination.port.number", "http.route.weight",
		"http.timeout", "http.retries.attempts", "http.retries.perTryTimeout", "http.retries.retryOn",
		"http.rewrite.uri", "http.rewrite.authority",
	}, under("http.headers", headerFields...), under("http.route.headers", headerFields...)),
	cures: map[string]string{
		"gateways": "remove it; the policy applies to traffic inside the mesh",
	},
	convert: func(d *document, m proto.Message) mesh.PolicySpec { return d.virtualService(m.(*istio.VirtualService)) },
}

func (d *document) virtualService(v *istio.VirtualService) *mesh.VirtualService {
	out := &mesh.VirtualService{}
	for i, host := range v.GetHosts() {
		out.Hosts = append(out.Hosts, d.host(fmt.Sprintf("spec.hosts[%d]", i), host))
	}
	d.visible(out.Hosts, v.GetExportTo())
	if len(v.GetHosts()) == 0 {
		d.fault("spec.hosts", "missing", "name the services that the routes are for")
	}
	for i, g := range v.GetGateways() {
		if g != "mesh" {
			d.fault(fmt.Sprintf("spec.gateways[%d]", i), fmt.Sprintf("%q is not supported", g), "remove it; only 'mesh', traffic between services, is done")
		}
	}
	for i, r := range v.GetHttp() {
		out.HTTP = append(out.HTTP, d.httpRoute(fmt.Sprintf("spec.http[%d]", i), r))
	}
	if len(v.GetHttp()) == 0 {
		d.fault("spec.http", "missing", "give at least one route")
	}
	return out
}

func (d *document) httpRoute(path string, r *istio.HTTPRoute) mesh.HTTPRoute {
	out := mesh.HTTPRoute{
		Name: r.GetName(), Timeout: d.timeout(path+".timeout", r.GetTimeout()),
		RewriteURI: r.GetRewrite().GetUri(), RewriteHost: r.GetRewrite().GetAuthority(),
		RequestHeaders:  d.headers(path+".headers.request", r.GetHeaders().GetRequest()),
		ResponseHeaders: d.headers(path+".headers.response", r.GetHeaders().GetResponse()),
	}
	d.rewritten(path+".rewrite.uri", out.RewriteURI)
	d.rewritten(path+".rewrite.authority", out.RewriteHost)
	for i, m := range r.GetMatch() {
		out.Matches = append(out.Matches, d.httpMatch(fmt.Sprintf("%s.match[%d]", path, i), m))
	}
	out.Destinations = d.destinations(path, r.GetRoute())
	if retries := r.GetRetries(); retries != nil {
		out.Retries = &mesh.Retries{
			Attempts:      d.count(path+".retries.attempts", retries.GetAttempts()),
			PerTryTimeout: d.duration(path+".retries.perTryTimeout", retries.GetPerTryTimeout()),
			On:            retries.GetRetryOn(),
		}
		d.retryOn(path+".retries.retryOn", retries.GetRetryOn())
	}
	return out
}

func (d *document) rewritten(path, value string) {
	if strings.ContainsAny(value, "\r\n\x00") {
		d.fault(path, fmt.Sprintf("%q has control characters", value), "remove them")
	}
}

// timeout is a duration of which 0 means none, as in Istio.
func (d *document) timeout(path string, v *durationpb.Duration) time.Duration {
	if v != nil && v.GetSeconds() == 0 && v.GetNanos() == 0 {
		return 0
	}
	return d.duration(path, v)
}

// retryConditions are what Envoy's retry_on may name, as far as the data plane does it.
var retryConditions = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx", "retriable-status-codes",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

func (d *document) retryOn(path, on string) {
	for condition := range strings.SplitSeq(on, ",") {
		condition = strings.TrimSpace(condition)
		status := regexp.MustCompile(`^[1-5]\d\d$`).MatchString(condition)
		if known := strings.Contains(","+strings.Join(retryConditions, ",")+",", ","+condition+","); condition != "" && !known && !status {
			d.fault(path, fmt.Sprintf("%q is not a condition", condition), "one of "+strings.Join(retryConditions, ", ")+", or a status code")
		}
	}
}

func (d *document) destinations(path string, routes []*istio.HTTPRouteDestination) (out []mesh.Destination) {
	if len(routes) == 0 {
		d.fault(path+".route", "missing", "say where the requests go")
	}
	sum := uint32(0)
	for i, r := range routes {
		at := fmt.Sprintf("%s.route[%d]", path, i)
		to := mesh.Destination{
			Host: d.host(at+".destination.host", r.GetDestination().GetHost()), Subset: r.GetDestination().GetSubset(),
			Weight:          d.count(at+".weight", r.GetWeight()),
			RequestHeaders:  d.headers(at+".headers.request", r.GetHeaders().GetRequest()),
			ResponseHeaders: d.headers(at+".headers.response", r.GetHeaders().GetResponse()),
		}
		if port := r.GetDestination().GetPort(); port != nil {
			to.Port = d.port(at+".destination.port", port.GetNumber())
		}
		sum += to.Weight
		out = append(out, to)
	}
	if len(out) > 1 && sum == 0 {
		d.fault(path+".route", "the weights sum to 0", "give weights")
	}
	return out
}

func (d *document) httpMatch(path string, m *istio.HTTPMatchRequest) mesh.HTTPMatch {
	out := mesh.HTTPMatch{
		Path: d.textMatch(path+".uri", m.GetUri()), IgnoreCase: m.GetIgnoreUriCase(),
		Method: d.textMatch(path+".method", m.GetMethod()), Authority: d.textMatch(path+".authority", m.GetAuthority()),
		Headers:        d.stringMatches(path+".headers", m.GetHeaders(), strings.ToLower),
		WithoutHeaders: d.stringMatches(path+".withoutHeaders", m.GetWithoutHeaders(), strings.ToLower),
		QueryParams:    d.stringMatches(path+".queryParams", m.GetQueryParams(), strings.Clone),
	}
	if m.GetPort() != 0 {
		out.Port = d.port(path+".port", m.GetPort())
	}
	return out
}

// textMatch is a match of what every request has, so it must say something.
func (d *document) textMatch(path string, m *istio.StringMatch) *mesh.StringMatch {
	if m != nil && m.GetMatchType() == nil {
		d.fault(path, "is empty", "write exact, prefix or regex, or remove it to match everything")
	}
	return d.stringMatch(path, m)
}

func (d *document) stringMatches(path string, in map[string]*istio.StringMatch, name func(string) string) map[string]*mesh.StringMatch {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]*mesh.StringMatch, len(in))
	for key, m := range in {
		out[name(key)] = d.stringMatch(path+"."+escape(key), m)
	}
	return out
}

// maxRegexBytes bounds what a request may have to be matched with. RE2 matches in linear time.
const maxRegexBytes = 1024

func (d *document) stringMatch(path string, m *istio.StringMatch) *mesh.StringMatch {
	switch match := m.GetMatchType().(type) {
	case *istio.StringMatch_Exact:
		return &mesh.StringMatch{Exact: &match.Exact}
	case *istio.StringMatch_Prefix:
		return &mesh.StringMatch{Prefix: &match.Prefix}
	case *istio.StringMatch_Regex:
		if _, err := regexp.Compile(match.Regex); err != nil || len(match.Regex) > maxRegexBytes {
			d.fault(path+".regex", fmt.Sprintf("is no RE2 expression of at most %d bytes: %v", maxRegexBytes, err), "see the syntax of RE2")
		}
		return &mesh.StringMatch{Regex: &match.Regex}
	}
	return nil
}

// protected headers are the proxy's own: changing them would change where a request goes or whom it comes from.
var protectedHeaders = regexp.MustCompile(`(?i)^(:.*|host|connection|transfer-encoding|content-length|x-forwarded-client-cert)$`)

// substitution is a command of Envoy's header formatter, such as %REQ(x-a)%.
var substitution = regexp.MustCompile(`%[A-Z_]+(\([^)]*\))?(:[0-9]+)?%`)

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (d *document) headers(path string, h *istio.Headers_HeaderOperations) (out mesh.HeaderChanges) {
	out = mesh.HeaderChanges{Set: h.GetSet(), Add: h.GetAdd(), Remove: h.GetRemove()}
	check := func(name, value string) {
		if substitution.MatchString(value) {
			d.fault(path, fmt.Sprintf("header %q: %q is a command to Envoy", name, value), "write the value itself; '%' stands for itself")
		}
		if !headerName.MatchString(name) || protectedHeaders.MatchString(name) || strings.ContainsAny(value, "\r\n\x00") {
			d.fault(path, fmt.Sprintf("header %q may not be changed, or is no header", name), "choose another header")
		}
	}
	for name, value := range out.Set {
		check(name, value)
	}
	for name, value := range out.Add {
		check(name, value)
	}
	for _, name := range out.Remove {
		check(name, "")
	}
	return out
}
