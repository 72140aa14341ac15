package http2

import (
	"net/http"
	"strconv"
	"strings"
)

// hopByHop fields end here (RFC 9110, section 7.6.1); HTTP/2 has none, an HTTP/1.1 upstream may.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Transfer-Encoding", "Upgrade"}

// endHere drops a response's hop-by-hop fields, and those that Connection names.
func endHere(header http.Header) {
	for _, list := range header["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); !strings.EqualFold(name, "content-length") {
				header.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		header.Del(name)
	}
}

// keepHost tells the upstream which host was rewritten.
func (x *stream) keepHost(header http.Header) {
	header.Set("X-Envoy-Original-Host", x.r.Host)
	if x.call.Route.Forward.AppendForwardedHost {
		header.Set("X-Forwarded-Host", strings.Join(append(header.Values("X-Forwarded-Host"), x.r.Host), ","))
	}
}

func (x *stream) clientCert(header http.Header) {
	const name = "X-Forwarded-Client-Cert"
	keep, add := x.conn.ForwardedCert(x.http.ForwardClientCert)
	if !keep {
		header.Del(name)
	}
	if add != "" {
		header.Add(name, add)
	}
}

// countAttempt sets x-envoy-attempt-count upstream, countInResponse downstream.
func (x *stream) countAttempt(header http.Header) {
	if x.call.Route.VirtualHost.IncludeAttempts {
		header.Set("X-Envoy-Attempt-Count", strconv.Itoa(x.call.Attempts))
	}
}

func (x *stream) countInResponse(header http.Header) {
	if x.call.Attempts > 0 && x.call.Route.VirtualHost.AttemptsInResponse {
		header.Set("X-Envoy-Attempt-Count", strconv.Itoa(x.call.Attempts))
	}
}
