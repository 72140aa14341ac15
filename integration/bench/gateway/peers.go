package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// peer is a proxy to compare with. start returns why it is left out, if it is not installed.
type peer struct {
	name, file string
	start      func(ctx context.Context, file, listen, upstream string) (*process, string, error)
}

// peers: the gateway is first.
var peers = []peer{
	{"periplus eastwest", "", self("gateway")},
	{"go splice (anchor)", "", self("anchor")},
	{"haproxy", "haproxy.cfg", haproxy("")},
	{"haproxy splice-auto", "haproxy-splice.cfg", haproxy("option splice-auto")},
	{"nginx stream", "nginx.conf", nginx},
	{"envoy", "envoy.yaml", envoy},
}

func self(role string) func(context.Context, string, string, string) (*process, string, error) {
	return func(ctx context.Context, _, listen, upstream string) (*process, string, error) {
		p, err := startSelf(ctx, role, proxyCPU, listen, upstream)
		return p, "", err
	}
}

const haproxyConfig = `global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  %s
frontend eastwest
  bind %s
  tcp-request inspect-delay 10s
  tcp-request content accept if { req_ssl_hello_type 1 }
  use_backend catalog if { req_ssl_sni -i %s }
backend catalog
  server one %s
`

func haproxy(option string) func(context.Context, string, string, string) (*process, string, error) {
	return func(ctx context.Context, file, listen, upstream string) (*process, string, error) {
		path, err := exec.LookPath("haproxy")
		if err != nil {
			return nil, "it is not installed", nil
		}
		config := fmt.Sprintf(haproxyConfig, option, listen, serverName, upstream)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, "", err
		}
		p, err := startPinned(ctx, proxyCPU, listen, path, "-db", "-q", "-f", file)
		return p, "", err
	}
}

const nginxModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

const nginxConfig = `load_module %s;
daemon off;
master_process off;
pid %s.pid;
error_log stderr crit;
events { worker_connections 4000; }
stream {
  access_log off;
  map $ssl_preread_server_name $service { %s %s; }
  server { listen %s; ssl_preread on; proxy_pass $service; }
}
`

func nginx(ctx context.Context, file, listen, upstream string) (*process, string, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, "it is not installed", nil
	}
	if _, err := os.Stat(nginxModule); err != nil {
		return nil, "its stream module is not installed", nil
	}
	config := fmt.Sprintf(nginxConfig, nginxModule, file, serverName, upstream, listen)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	p, err := startPinned(ctx, proxyCPU, listen, path, "-c", file, "-e", "stderr")
	return p, "", err
}

const envoyConfig = `static_resources:
  listeners:
  - address: {socket_address: {address: %s, port_value: %s}}
    listener_filters:
    - {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    filter_chains:
    - filters:
      - {name: sni, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster}}
      - {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: eastwest, cluster: none}}
  clusters:
  - name: %s
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: catalog
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]
`

// envoy is what the mesh tells an Envoy that is its gateway, in static form.
func envoy(ctx context.Context, file, listen, upstream string) (*process, string, error) {
	path, err := envoyPath()
	if err != nil || path == "" {
		return nil, "it is not there ('make realdeps' gets it)", err
	}
	host, port, _ := net.SplitHostPort(listen)
	upHost, upPort, _ := net.SplitHostPort(upstream)
	config := fmt.Sprintf(envoyConfig, host, port, serverName, upHost, upPort)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	p, err := startPinned(ctx, proxyCPU, listen, path, "-c", file, "--concurrency", "1", "--log-level", "off", "--disable-hot-restart")
	return p, "", err
}

// envoyPath is the Envoy of the tests; "" if there is none.
func envoyPath() (string, error) {
	components, err := realdeps.Components()
	if err != nil {
		return "", err
	}
	cache, err := realdeps.Cache()
	for _, c := range components {
		if path, ok := c.Find(cache); ok && c.Name == "envoy" {
			return path, err
		}
	}
	return "", err
}

// runAnchor copies without a look.
func runAnchor(ctx context.Context, listen, upstream string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				return
			}
			defer server.Close()
			go func() {
				_, _ = io.Copy(server, client)
				_ = server.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(client, server)
		}()
	}
}
