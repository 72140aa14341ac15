// Package admin is the sidecar's admin interface: the paths, formats and verbs of Envoy's, so that the tools people
// have (istioctl proxy-config, scripts around /clusters and /config_dump, Prometheus) work.
//
// It shows and steers one proxy and has no authentication: its listener belongs on loopback. What changes anything
// needs POST, and what a web page makes a browser send is refused (internal/csrf).
//
//	request -> handler -> a snapshot of configuration and clusters -> text or JSON
package admin
