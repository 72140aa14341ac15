package config

import (
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previouspriorities "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
)

// retryConditions are the names of x-envoy-retry-on and x-envoy-retry-grpc-on.
var retryConditions = map[string]RetryOn{
	"5xx": Retry5xx, "gateway-error": RetryGatewayError, "reset": RetryReset,
	"reset-before-request": RetryResetBeforeRequest, "connect-failure": RetryConnectFailure,
	"retriable-4xx": RetryRetriable4xx, "refused-stream": RetryRefusedStream,
	"retriable-status-codes": RetryCodes, "cancelled": RetryGRPCCancelled,
	"deadline-exceeded": RetryGRPCDeadline, "internal": RetryGRPCInternal,
	"resource-exhausted": RetryGRPCExhausted, "unavailable": RetryGRPCUnavailable,
}

// decodeRetry is nil for nil.
func decodeRetry(p problems, pb *routev3.RetryPolicy) *RetryPolicy {
	if pb == nil {
		return nil
	}
	p.unsupported("retriable_headers", len(pb.GetRetriableHeaders())+len(pb.GetRetriableRequestHeaders()) > 0)
	p.unsupported("rate_limited_retry_back_off", pb.GetRateLimitedRetryBackOff() != nil)
	p.unsupported("retry_options_predicates", len(pb.GetRetryOptionsPredicates()) > 0)
	r := &RetryPolicy{
		Attempts:      number(pb.GetNumRetries(), 1),
		PerTryTimeout: p.duration("per_try_timeout", pb.GetPerTryTimeout(), 0),
		PerTryIdle:    p.duration("per_try_idle_timeout", pb.GetPerTryIdleTimeout(), 0),
		BackoffBase:   p.positive("retry_back_off.base_interval", pb.GetRetryBackOff().GetBaseInterval(), 25*time.Millisecond),
		HostAttempts:  uint32(min(max(1, pb.GetHostSelectionRetryMaxAttempts()), 64)),
	}
	r.BackoffMax = max(r.BackoffBase, p.positive("retry_back_off.max_interval", pb.GetRetryBackOff().GetMaxInterval(), 10*r.BackoffBase))
	for _, predicate := range pb.GetRetryHostPredicate() {
		r.OtherHost = p.unpack("retry_host_predicate", predicate.GetTypedConfig(), new(previoushosts.PreviousHostsPredicate))
	}
	if priority := pb.GetRetryPriority(); priority != nil {
		previous := new(previouspriorities.PreviousPrioritiesConfig)
		if p.unpack("retry_priority", priority.GetTypedConfig(), previous); previous.GetUpdateFrequency() < 1 {
			p.refuse("retry_priority", "update_frequency %d is not above 0", previous.GetUpdateFrequency())
		}
		r.FurtherAfter = uint32(max(0, previous.GetUpdateFrequency()))
	}
	for _, code := range pb.GetRetriableStatusCodes() {
		r.Codes = append(r.Codes, int(code))
	}
	p.limit("retriable_status_codes", len(r.Codes), 500)
	r.conditions(p, pb.GetRetryOn())
	return r
}

// conditions also reads status codes written among the conditions, as Istio allows.
func (r *RetryPolicy) conditions(p problems, on string) {
	for name := range strings.SplitSeq(on, ",") {
		name = strings.TrimSpace(name)
		condition, known := retryConditions[name]
		code, err := strconv.Atoi(name)
		switch {
		case known:
			r.On |= condition
		case err == nil && code >= 100 && code <= 599:
			r.On, r.Codes = r.On|RetryCodes, append(r.Codes, code)
		case name != "":
			p.refuse("retry_on", "%q is not supported", name)
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

func headerOps(p problems, pb withHeaders) HeaderOps {
	return HeaderOps{
		Request:        decodeHeaderOps(p, "request_headers_to_add", pb.GetRequestHeadersToAdd()),
		Response:       decodeHeaderOps(p, "response_headers_to_add", pb.GetResponseHeadersToAdd()),
		RemoveRequest:  headerNames(p, "request_headers_to_remove", pb.GetRequestHeadersToRemove()),
		RemoveResponse: headerNames(p, "response_headers_to_remove", pb.GetResponseHeadersToRemove()),
	}
}

var headerActions = map[corev3.HeaderValueOption_HeaderAppendAction]HeaderAction{
	corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD: AppendOrAdd, corev3.HeaderValueOption_ADD_IF_ABSENT: AddIfAbsent,
	corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD: OverwriteOrAdd, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS: OverwriteIfExists,
}

func decodeHeaderOps(p problems, field string, options []*corev3.HeaderValueOption) []HeaderOp {
	p.limit(field, len(options), maxHeaderOps)
	var ops []HeaderOp
	for i, option := range options {
		p := p.at(field, i)
		op := HeaderOp{Name: strings.ToLower(option.GetHeader().GetKey()), Value: option.GetHeader().GetValue()}
		if raw := option.GetHeader().GetRawValue(); len(raw) > 0 {
			op.Value = string(raw)
		}
		op.Action = headerActions[option.GetAppendAction()]
		if append := option.GetAppend(); append != nil && !append.GetValue() {
			op.Action = OverwriteOrAdd
		}
		if op.Value = strings.ReplaceAll(op.Value, "%%", "\x00"); strings.Contains(op.Value, "%") {
			p.refuse("header.value", "substitution commands are not supported")
		}
		op.Value = strings.ReplaceAll(op.Value, "\x00", "%")
		if !changeable(op.Name) || !headerValue(op.Value) {
			p.refuse("header", "%q cannot be set so", op.Name)
		}
		if op.Value != "" || option.GetKeepEmptyValue() {
			ops = append(ops, op)
		}
	}
	return ops
}

func headerNames(p problems, field string, names []string) []string {
	p.limit(field, len(names), maxHeaderOps)
	var lower []string
	for _, name := range names {
		name = strings.ToLower(name)
		if !changeable(name) {
			p.refuse(field, "%q cannot be removed", name)
		}
		lower = append(lower, name)
	}
	return lower
}

// changeable: a token (RFC 9110, 5.6.2), and not one that frames or routes the message.
func changeable(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	switch name {
	case "", "host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "proxy-connection":
		return false
	}
	return true
}

func headerValue(value string) bool {
	return len(value) <= 16<<10 && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 127 })
}
