package downstream

import (
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previouspriorities "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

// retryConditions are the names of x-envoy-retry-on and x-envoy-retry-grpc-on.
var retryConditions = map[string]config.RetryOn{
	"5xx": config.Retry5xx, "gateway-error": config.RetryGatewayError, "reset": config.RetryReset,
	"reset-before-request": config.RetryResetBeforeRequest, "connect-failure": config.RetryConnectFailure,
	"retriable-4xx": config.RetryRetriable4xx, "refused-stream": config.RetryRefusedStream,
	"retriable-status-codes": config.RetryCodes, "cancelled": config.RetryGRPCCancelled,
	"deadline-exceeded": config.RetryGRPCDeadline, "internal": config.RetryGRPCInternal,
	"resource-exhausted": config.RetryGRPCExhausted, "unavailable": config.RetryGRPCUnavailable,
}

// decodeRetry is nil for nil.
func decodeRetry(p field.Problems, pb *routev3.RetryPolicy) *config.RetryPolicy {
	if pb == nil {
		return nil
	}
	p.Unsupported("retriable_headers", len(pb.GetRetriableHeaders())+len(pb.GetRetriableRequestHeaders()) > 0)
	p.Unsupported("rate_limited_retry_back_off", pb.GetRateLimitedRetryBackOff() != nil)
	p.Unsupported("retry_options_predicates", len(pb.GetRetryOptionsPredicates()) > 0)
	r := &config.RetryPolicy{
		Attempts:      field.Number(pb.GetNumRetries(), 1),
		PerTryTimeout: p.Duration("per_try_timeout", pb.GetPerTryTimeout(), 0),
		PerTryIdle:    p.Duration("per_try_idle_timeout", pb.GetPerTryIdleTimeout(), 0),
		BackoffBase:   p.Positive("retry_back_off.base_interval", pb.GetRetryBackOff().GetBaseInterval(), 25*time.Millisecond),
	}
	r.BackoffMax = max(r.BackoffBase, p.Positive("retry_back_off.max_interval", pb.GetRetryBackOff().GetMaxInterval(), 10*r.BackoffBase))
	for _, predicate := range pb.GetRetryHostPredicate() {
		r.OtherHost = p.Unpack("retry_host_predicate", predicate.GetTypedConfig(), new(previoushosts.PreviousHostsPredicate))
	}
	if priority := pb.GetRetryPriority(); priority != nil {
		previous := new(previouspriorities.PreviousPrioritiesConfig)
		if p.Unpack("retry_priority", priority.GetTypedConfig(), previous); previous.GetUpdateFrequency() < 1 {
			p.Refuse("retry_priority", "update_frequency %d is not above 0", previous.GetUpdateFrequency())
		}
		r.FurtherAfter = uint32(max(0, previous.GetUpdateFrequency()))
	}
	for _, code := range pb.GetRetriableStatusCodes() {
		r.Codes = append(r.Codes, int(code))
	}
	p.Limit("retriable_status_codes", len(r.Codes), 500)
	decodeConditions(r, p, pb.GetRetryOn())
	return r
}

// conditions also reads status codes written among the conditions, as Istio allows.
func decodeConditions(r *config.RetryPolicy, p field.Problems, on string) {
	for name := range strings.SplitSeq(on, ",") {
		name = strings.TrimSpace(name)
		condition, known := retryConditions[name]
		code, err := strconv.Atoi(name)
		switch {
		case known:
			r.On |= condition
		case err == nil && code >= 100 && code <= 599:
			r.On, r.Codes = r.On|config.RetryCodes, append(r.Codes, code)
		case name != "":
			p.Refuse("retry_on", "%q is not supported", name)
		}
	}
}

// withHeaders is what routes, virtual hosts, tables and weighted clusters have in common.
type withHeaders interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func headerOps(p field.Problems, pb withHeaders) config.HeaderOps {
	return config.HeaderOps{
		Request:        field.HeaderOps(p, "request_headers_to_add", pb.GetRequestHeadersToAdd()),
		Response:       field.HeaderOps(p, "response_headers_to_add", pb.GetResponseHeadersToAdd()),
		RemoveRequest:  field.HeaderNames(p, "request_headers_to_remove", pb.GetRequestHeadersToRemove()),
		RemoveResponse: field.HeaderNames(p, "response_headers_to_remove", pb.GetResponseHeadersToRemove()),
	}
}
