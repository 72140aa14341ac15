package http2

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/periplus-mesh/periplus/proxy/forward"
)

// grpcOf maps HTTP statuses to gRPC's (grpc/doc/http-grpc-status-mapping.md); what is missing is unknown, 2.
var grpcOf = map[int]int{
	http.StatusOK: 0, http.StatusBadRequest: 13, http.StatusUnauthorized: 16, http.StatusForbidden: 7, http.StatusNotFound: 12,
	http.StatusTooManyRequests: 14, http.StatusBadGateway: 14, http.StatusServiceUnavailable: 14, http.StatusGatewayTimeout: 14,
}

// httpOf maps gRPC statuses back, for outlier detection (Envoy's Grpc::Utility::grpcToHttpStatus); others are 200.
var httpOf = map[int]int{2: 500, 4: 504, 12: 501, 13: 500, 14: 503, 15: 500}

// replyGRPC answers with trailers alone: no body, so that the stream ends with its head.
func (x *stream) replyGRPC(a *forward.Reply) {
	status, known := grpcOf[a.Status]
	if !known {
		status = 2
	}
	header := x.w.Header()
	header.Set("Content-Type", "application/grpc")
	header.Set("Grpc-Status", strconv.Itoa(status))
	if a.Body != "" {
		header.Set("Grpc-Message", grpcMessage(a.Body))
	}
	x.record.Code, x.record.GRPC = http.StatusOK, status
	x.w.WriteHeader(http.StatusOK)
}

// grpcMessage percent-encodes (gRPC over HTTP/2, "Status-Message").
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// grpcStatus reads grpc-status, or -1.
func grpcStatus(h http.Header) int {
	if value := h.Get("Grpc-Status"); value != "" {
		if n, err := strconv.Atoi(value); err == nil && n >= 0 && n < 1000 {
			return n
		}
	}
	return -1
}

// effectiveStatus is what outlier detection is told of a response.
func effectiveStatus(status, grpc int) int {
	if mapped, ok := httpOf[grpc]; ok && status == http.StatusOK {
		return mapped
	}
	return status
}
