package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/inbound"
	"github.com/periplus-mesh/periplus/proxy/outbound"
	"github.com/periplus-mesh/periplus/trust"
)

const domain = "bench.mesh"

// serveRole is one process of ours under measurement.
func serveRole(role, dir, listen, upstream string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	if role == "httputil" {
		target := &url.URL{Scheme: "http", Host: upstream}
		return http.Serve(l, &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
			Transport: &http.Transport{MaxIdleConnsPerHost: 256},
		})
	}
	source, err := readIdentity(dir, map[string]string{"inbound": "server", "outbound": "client"}[role])
	if role != "plain" && err != nil {
		return err
	}
	c := resources(role, upstream)
	clusters := forward.NewClusters(forward.ClustersConfig{Source: source})
	clusters.Update(c)
	f := forward.New(forward.Config{Clusters: clusters})
	serve := outbound.New(outbound.Config{Forwarder: f}).ServeConn
	if role == "inbound" {
		serve = inbound.New(inbound.Config{Forwarder: f, Source: source}).ServeConn
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(context.Background(), conn, c.Listeners["l"])
	}
}

func resources(role, upstream string) *config.Config {
	settings := &config.Settings{Name: "up", ConnectTimeout: time.Second, IdleTimeout: time.Hour}
	settings.Balance.Policy = config.LeastRequest
	chain := &config.FilterChain{HTTP: &config.HTTP{
		IdleTimeout: time.Hour,
		Routes: &config.RouteTable{VirtualHosts: []*config.VirtualHost{{Domains: []string{"*"}, Routes: []*config.Route{{
			Name: "all", Match: config.RouteMatch{Path: config.PathMatch{Value: "/"}},
			Forward: &config.Forward{Clusters: []config.WeightedCluster{{Name: "up", Weight: 1}}, TotalWeight: 1, Timeout: 15 * time.Second},
		}}}}},
	}}
	switch role {
	case "outbound":
		settings.TLS = &config.UpstreamTLS{SNI: "server", ALPN: []string{"periplus-http/1.1"}, SANs: []string{"spiffe://" + domain + "/server"}}
	case "inbound":
		chain.TLS = &config.DownstreamTLS{ALPN: []string{"periplus-http/1.1"}, RequireClient: true}
		chain.HTTP.ForwardClientCert = config.SanitizeSetXFCC
		chain.HTTP.RBAC = []*config.RBAC{{Policies: []config.RBACPolicy{{
			Name: "client", Permissions: []config.Condition{{Kind: config.Any}},
			Principals: []config.Condition{{Kind: config.Authenticated, String: &config.StringMatch{Value: "spiffe://" + domain + "/client"}}},
		}}}}
	}
	endpoints := &config.Endpoints{Overprovisioning: 140, Localities: []config.Locality{{
		Weight: 1, Endpoints: []config.Endpoint{{Address: netip.MustParseAddrPort(upstream), Weight: 1}},
	}}}
	return &config.Config{
		Listeners: map[string]*config.Listener{"l": {Name: "l", Chains: []*config.FilterChain{chain}}},
		Clusters:  map[string]*config.Cluster{"up": {Name: "up", Settings: settings, Endpoints: endpoints}},
	}
}

// writeIdentities makes a root and two leaves that SPIFFE and nginx both verify.
func writeIdentities(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: domain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if err := writePEM(dir, "ca.crt", "CERTIFICATE", der); err != nil {
		return err
	}
	for _, name := range []string{"server", "client"} {
		if err := writeLeaf(dir, name, root, key); err != nil {
			return err
		}
	}
	return nil
}

func writeLeaf(dir, name string, root *x509.Certificate, rootKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{{Scheme: "spiffe", Host: domain, Path: "/" + name}},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, rootKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(dir, name+".key", "PRIVATE KEY", private); err != nil {
		return err
	}
	if err := writePEM(dir, name+".pem", "CERTIFICATE", der, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...); err != nil {
		return err // for HAProxy: both in one
	}
	return writePEM(dir, name+".crt", "CERTIFICATE", der)
}

func writePEM(dir, name, kind string, der []byte, more ...byte) error {
	return os.WriteFile(filepath.Join(dir, name), append(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), more...), 0o600)
}

func readIdentity(dir, name string) (trust.Source, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	id, err := spiffeid.FromString(fmt.Sprintf("spiffe://%s/%s", domain, name))
	if err != nil {
		return nil, err
	}
	return watch.New(&trust.Material{
		ID: id, Certificate: &certificate, Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{id.TrustDomain(): {root}},
	}), nil
}
