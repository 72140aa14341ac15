package envoy

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// The default retry policy: Istio's, and what a killed endpoint needs. A request that may be repeated is also tried
// again when its connection breaks before the response; any other only if nothing of it was sent.
const (
	defaultRetryOn       = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
	safeRetryOn          = defaultRetryOn + ",reset"
	unsafeRetryOn        = defaultRetryOn + ",reset-before-request"
	defaultRetries       = 2
	hostAttempts         = 5
	previousPriorities   = "envoy.retry_priorities.previous_priorities"
	triesBeforeFurther   = 2 // tries nearby before one goes further away: an endpoint that died may have been the only one there
	previousHostsFilter  = "envoy.retry_host_predicates.previous_hosts"
	retriableStatusCodes = "retriable-status-codes"
)

// meaningless conditions need what a VirtualService cannot name, or a filter that is not there.
var meaningless = [...]string{"retriable-headers", "envoy-ratelimited"}

// safeMethods change nothing at the server (RFC 9110, 9.2.1), so they may be repeated.
var safeMethods = [...]string{"GET", "HEAD", "OPTIONS"}

// entries are the routes for one match of an HTTP route. Where its retries are the default there are two: for the
// methods that are not safe, then for what is left.
func (r router) entries(http *mesh.HTTPRoute, match *mesh.HTTPMatch, to translate.Request) []*routev3.Route {
	if http.Retries != nil {
		return []*routev3.Route{r.route(http, match, to, retryPolicy(http.Retries))}
	}
	unsafe := r.route(http, match, to, retryOn(unsafeRetryOn))
	safe := r.route(http, match, to, retryOn(safeRetryOn))
	if match != nil && match.Method != nil && match.Method.Exact != nil {
		if slices.Contains(safeMethods[:], *match.Method.Exact) {
			return []*routev3.Route{safe}
		}
		return []*routev3.Route{unsafe}
	}
	for _, method := range safeMethods { // negated and exact: cheaper for the proxy than a regular expression
		not := headerMatcher(":method", &mesh.StringMatch{Exact: &method}, true)
		unsafe.Match.Headers = append(unsafe.Match.Headers, not)
	}
	return []*routev3.Route{unsafe, safe}
}

// retryOn is the default policy, on these conditions.
func retryOn(conditions string) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn: conditions, RetriableStatusCodes: []uint32{503}, NumRetries: wrapperspb.UInt32(defaultRetries),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       previousHostsFilter,
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previousv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: hostAttempts,
		RetryPriority: &routev3.RetryPolicy_RetryPriority{
			Name:       previousPriorities,
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: pack(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: triesBeforeFurther})},
		},
	}
}

// retryPolicy is a VirtualService's, and none for 0 attempts. Numbers in On are status codes.
func retryPolicy(r *mesh.Retries) *routev3.RetryPolicy {
	if r.Attempts == 0 {
		return nil
	}
	out := retryOn(defaultRetryOn)
	out.NumRetries, out.PerTryTimeout = wrapperspb.UInt32(r.Attempts), positiveDuration(r.PerTryTimeout)
	if r.On != "" {
		out.RetryOn, out.RetriableStatusCodes = splitRetryOn(r.On)
	}
	return out
}

func splitRetryOn(on string) (string, []uint32) {
	var words []string
	var codes []uint32
	for _, word := range strings.Split(on, ",") {
		word = strings.TrimSpace(word)
		if code, err := strconv.ParseUint(word, 10, 16); err == nil {
			codes = append(codes, uint32(code))
		} else if word != "" && !slices.Contains(meaningless[:], word) {
			words = append(words, word)
		}
	}
	if len(codes) > 0 && !slices.Contains(words, retriableStatusCodes) {
		words = append(words, retriableStatusCodes)
	}
	return strings.Join(words, ","), codes
}
