package main

import "fmt"

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

func chainHops(settings) []hop {
	return []hop{
		{"periplus", func(r *run) (string, error) {
			inbound, err := r.own("inbound", r.upstream)
			if err != nil {
				return "", err
			}
			if err := waitFor(inbound); err != nil {
				return "", err
			}
			return r.own("outbound", inbound)
		}},
		{"nginx", func(r *run) (string, error) {
			inbound, err := r.nginx("in", nginxIn, r.upstream)
			if err != nil {
				return "", err
			}
			return r.nginx("out", nginxOut, inbound)
		}},
	}
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
	listen := freeAddress()
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

func (r *run) haproxy() (string, error) {
	listen := freeAddress()
	path, err := r.file("haproxy.cfg", fmt.Sprintf(`global
 nbthread 1
 maxconn 4000
defaults
 mode http
 timeout connect 5s
 timeout client 60s
 timeout server 60s
 http-reuse always
frontend f
 bind %s
 unique-id-format %%[uuid()]
 unique-id-header X-Request-Id
 default_backend b
backend b
 server s %s
`, listen, r.upstream))
	if err != nil {
		return "", err
	}
	return listen, r.command("/usr/sbin/haproxy", "-db", "-f", path)
}

func (r *run) envoyPlain() (string, error) {
	listen := freeAddress()
	path, err := r.file("envoy.yaml", envoyConfig(listen, r.upstream))
	if err != nil {
		return "", err
	}
	return listen, r.command(r.envoy, "-c", path, "--concurrency", "1", "--log-level", "off", "--base-id", "77")
}
