package http2

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// keepHost tells the upstream which host was rewritten.
func (x *stream) keepHost(header http.Header) {
	header.Set("X-Envoy-Original-Host", x.r.Host)
	if x.call.Route.Forward.AppendForwardedHost {
		header.Set("X-Forwarded-Host", strings.Join(append(header.Values("X-Forwarded-Host"), x.r.Host), ","))
	}
}

// clientCert applies forward_client_cert_details; nobody's word is taken but that of the certificate.
func (x *stream) clientCert(header http.Header) {
	const name = "X-Forwarded-Client-Cert"
	switch x.http.ForwardClientCert {
	case config.SanitizeXFCC, config.SanitizeSetXFCC:
		header.Del(name)
	}
	if x.conn.ClientCert == "" {
		return
	}
	switch x.http.ForwardClientCert {
	case config.SanitizeSetXFCC:
		header.Set(name, x.conn.ClientCert)
	case config.AppendForwardXFCC:
		header.Add(name, x.conn.ClientCert)
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
