package main

import (
	"fmt"

	"github.com/periplus-mesh/periplus/internal/freeport"
)

func plainHops(s settings) []hop {
	hops := []hop{
		{"periplus", func(r *run) (string, error) { return r.own("plain", r.upstream) }},
		{"nginx", func(r *run) (string, error) { return r.nginx("plain", nginxPlain, r.upstream) }},
		{"haproxy", (*run).haproxy},
		{"httputil.ReverseProxy", func(r *run) (string, error) { return r.own("httputil", r.upstream) }},
	}
	if s.envoy != "" {
		hops = append(hops, hop{"envoy", (*run).envoyPlain})
	}
	return hops
}

func chainHops(s settings) []hop {
	hops := []hop{
		{"periplus", func(r *run) (string, error) {
			return r.chain(func(up string) (string, error) { return r.own("inbound", up) }, func(up string) (string, error) { return r.own("outbound", up) })
		}},
		{"nginx", func(r *run) (string, error) {
			return r.chain(func(up string) (string, error) { return r.nginx("in", nginxIn, up) }, func(up string) (string, error) { return r.nginx("out", nginxOut, up) })
		}},
		{"haproxy", (*run).haproxyChain},
	}
	if s.envoy != "" {
		hops = append(hops, hop{"envoy", (*run).envoyChain})
	}
	return hops
}

// chain starts the server's side before the upstream and the client's side before that. In all chains the hop
// between the two is mutual TLS 1.3 over kept connections, and sessions are resumed.
func (r *run) chain(in, out func(upstream string) (string, error)) (string, error) {
	inbound, err := in(r.upstream)
	if err != nil {
		return "", err
	}
	if err := waitFor(inbound); err != nil {
		return "", err
	}
	return out(inbound)
}

const nginxFrame = `daemon off; master_process off; worker_processes 1; pid %[1]s/nginx-%[2]s.pid; error_log /dev/null;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; client_body_temp_path %[1]s/%[2]s-b; proxy_temp_path %[1]s/%[2]s-p;
 fastcgi_temp_path %[1]s/%[2]s-f; uwsgi_temp_path %[1]s/%[2]s-u; scgi_temp_path %[1]s/%[2]s-s;
 upstream up { server %[4]s; keepalive 64; keepalive_requests 100000000; }
 server { listen %[3]s; %[5]s } }
`

const nginxPass = `location / { proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
 proxy_set_header X-Request-Id $request_id; %s proxy_pass %s://up; }`

var (
	nginxPlain = func(string) string { return fmt.Sprintf(nginxPass, "", "http") }
	nginxIn    = func(dir string) string {
		return "ssl_certificate " + dir + "/server.crt; ssl_certificate_key " + dir + "/server.key; ssl_client_certificate " + dir +
			"/ca.crt; ssl_verify_client on; ssl_protocols TLSv1.3; " + fmt.Sprintf(nginxPass, "", "http")
	}
	nginxOut = func(dir string) string {
		return fmt.Sprintf(nginxPass, "proxy_ssl_certificate "+dir+"/client.crt; proxy_ssl_certificate_key "+dir+"/client.key; proxy_ssl_trusted_certificate "+dir+
			"/ca.crt; proxy_ssl_verify on; proxy_ssl_name server; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; ", "https")
	}
)

func (r *run) nginx(name string, location func(string) string, upstream string) (string, error) {
	listen := freeport.Loopback().String()
	text := fmt.Sprintf(nginxFrame, r.dir, name, listenOption(name, listen), upstream, location(r.dir))
	path, err := r.file("nginx-"+name+".conf", text)
	if err != nil {
		return "", err
	}
	return listen, r.command("/usr/sbin/nginx", "-c", path, "-p", r.dir, "-e", "/dev/null")
}

func listenOption(name, listen string) string {
	if name == "in" {
		return listen + " ssl"
	}
	return listen
}

func (r *run) haproxy() (string, error) { return r.startHAProxy("plain", r.upstream, "", "") }

func (r *run) haproxyChain() (string, error) {
	const tls = " ssl alpn http/1.1 ssl-min-ver TLSv1.3 verify required "
	return r.chain(
		func(up string) (string, error) {
			return r.startHAProxy("in", up, tls+"crt "+r.dir+"/server.pem ca-file "+r.dir+"/ca.crt", "")
		},
		func(up string) (string, error) {
			return r.startHAProxy("out", up, "", tls+"crt "+r.dir+"/client.pem ca-file "+r.dir+"/ca.crt sni str(server) verifyhost server")
		})
}

// startHAProxy appends options to its bind and server lines.
func (r *run) startHAProxy(name, upstream, bind, server string) (string, error) {
	listen := freeport.Loopback().String()
	path, err := r.file("haproxy-"+name+".cfg", fmt.Sprintf(`global
 nbthread 1
 maxconn 4000
defaults
 mode http
 timeout connect 5s
 timeout client 60s
 timeout server 60s
 http-reuse always
frontend f
 bind %s%s
 unique-id-format %%[uuid()]
 unique-id-header X-Request-Id
 default_backend b
backend b
 server s %s%s
`, listen, bind, upstream, server))
	if err != nil {
		return "", err
	}
	return listen, r.command("/usr/sbin/haproxy", "-db", "-f", path)
}
