package main

import (
	"fmt"
	"net"

	"github.com/periplus-mesh/periplus/internal/freeport"
)

// envoySocket is one transport socket's kind and TLS context; the zero value is plain text.
type envoySocket struct{ kind, context string }

func (s envoySocket) String() string {
	if s.kind == "" {
		return ""
	}
	return fmt.Sprintf(`transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%s, %s}}`, s.kind, s.context)
}

// envoyTLS presents name's certificate and verifies the other side's; extra is of the context itself.
func envoyTLS(dir, kind, name, peer, extra string) envoySocket {
	return envoySocket{kind, fmt.Sprintf(`%s, common_tls_context: {alpn_protocols: [http/1.1],
      tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3},
      tls_certificates: [{certificate_chain: {filename: %s/%s.crt}, private_key: {filename: %s/%s.key}}],
      validation_context: {trusted_ca: {filename: %s/ca.crt},
        match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://%s/%s"}}]}}`, extra, dir, name, dir, name, dir, domain, peer)}
}

// envoyRBAC does what ours does inbound.
const envoyRBAC = `
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules: {action: ALLOW, policies: {client: {permissions: [{any: true}],
                principals: [{authenticated: {principal_name: {exact: "spiffe://` + domain + `/client"}}}]}}}`

func envoyConfig(listen, upstream string, down, up envoySocket) string {
	host, port, _ := net.SplitHostPort(listen)
	upHost, upPort, _ := net.SplitHostPort(upstream)
	forwarded, filters := "SANITIZE", ""
	if down.kind != "" {
		forwarded, filters = "SANITIZE_SET", envoyRBAC
	}
	return fmt.Sprintf(`static_resources:
  listeners:
  - address: {socket_address: {address: %s, port_value: %s}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          normalize_path: true
          merge_slashes: true
          forward_client_cert_details: %s
          set_current_client_cert_details: {uri: true}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: up}}]}
          http_filters:%s
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      %s
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: up
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]
    %s
`, host, port, forwarded, filters, down, upHost, upPort, up)
}

func (r *run) startEnvoy(name, upstream string, down, up envoySocket) (string, error) {
	listen := freeport.Loopback().String()
	path, err := r.file("envoy-"+name+".yaml", envoyConfig(listen, upstream, down, up))
	if err != nil {
		return "", err
	}
	return listen, r.command(r.envoy, "-c", path, "--concurrency", "1", "--log-level", "off", "--disable-hot-restart")
}

func (r *run) envoyPlain() (string, error) {
	return r.startEnvoy("plain", r.upstream, envoySocket{}, envoySocket{})
}

func (r *run) envoyChain() (string, error) {
	return r.chain(
		func(upstream string) (string, error) {
			return r.startEnvoy("in", upstream, envoyTLS(r.dir, "DownstreamTlsContext", "server", "client", "require_client_certificate: true"), envoySocket{})
		},
		func(upstream string) (string, error) {
			return r.startEnvoy("out", upstream, envoySocket{}, envoyTLS(r.dir, "UpstreamTlsContext", "client", "server", "sni: server"))
		})
}
