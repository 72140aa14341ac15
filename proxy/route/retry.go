package route

import (
	"slices"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// Outcome is how an attempt ended without a response.
type Outcome uint8

// The outcomes.
const (
	Responded      Outcome = iota
	ConnectFailed          // no connection, or no TLS
	ResetUnsent            // reset before anything of the request was sent
	Reset                  // reset after that, before the response's head was complete
	Refused                // HTTP/2 REFUSED_STREAM, or GOAWAY below the stream
	TriedTooLong           // per-try timeout
	NoUpstream             // nobody to try
	OverflowedPool         // a circuit breaker was open
	StreamReset            // an HTTP/2 stream was reset before the response's head was complete
)

// retriedBy says which conditions ask for another attempt after an outcome, whatever the status.
var retriedBy = [...]config.RetryOn{
	ConnectFailed: config.RetryConnectFailure | config.Retry5xx | config.RetryGatewayError | config.RetryReset | config.RetryResetBeforeRequest,
	// Envoy takes any reset for a gateway error.
	ResetUnsent:  config.RetryReset | config.RetryResetBeforeRequest | config.Retry5xx | config.RetryGatewayError,
	Reset:        config.RetryReset | config.Retry5xx | config.RetryGatewayError,
	Refused:      config.RetryRefusedStream | config.RetryReset | config.Retry5xx | config.RetryGatewayError,
	StreamReset:  config.RetryReset | config.Retry5xx | config.RetryGatewayError,
	TriedTooLong: config.Retry5xx | config.RetryGatewayError | config.RetryReset,
}

// Retries tells whether the policy asks for another attempt after an outcome.
func Retries(p *config.RetryPolicy, o Outcome) bool {
	return p != nil && int(o) < len(retriedBy) && p.On&retriedBy[o] != 0
}

// RetriesStatus tells whether the policy asks for another attempt after a response; grpc is grpc-status of a
// response that is trailers only, or -1.
func RetriesStatus(p *config.RetryPolicy, status, grpc int) bool {
	if p == nil {
		return false
	}
	switch {
	case p.On&config.Retry5xx != 0 && status >= 500 && status <= 599,
		p.On&config.RetryGatewayError != 0 && status >= 502 && status <= 504,
		p.On&config.RetryRetriable4xx != 0 && status == 409,
		p.On&config.RetryCodes != 0 && slices.Contains(p.Codes, status):
		return true
	}
	on, ok := grpcCodes[grpc]
	return ok && p.On&on != 0
}

var grpcCodes = map[int]config.RetryOn{
	1: config.RetryGRPCCancelled, 4: config.RetryGRPCDeadline, 8: config.RetryGRPCExhausted,
	13: config.RetryGRPCInternal, 14: config.RetryGRPCUnavailable,
}
