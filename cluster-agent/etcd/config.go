package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// DefaultPrefix is where the registry begins.
const DefaultPrefix = "/periplus/v1"

// Connection is how etcd is reached.
type Connection struct {
	// Endpoints are URLs, http or https, of the members of one etcd cluster.
	Endpoints []string
	// Prefix of every key; "" = DefaultPrefix.
	Prefix string
	// CA is a PEM file of the roots of etcd's certificates; "" = the system's.
	CA string
	// Cert and Key are PEM files of the client's certificate, read again for each connection; "" = none.
	Cert, Key string
	// User of etcd's own authentication; "" = none. PasswordFile has the password.
	User, PasswordFile string
}

func (c *Connection) validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("etcd: an endpoint is needed, such as https://etcd-1:2379")
	}
	for _, endpoint := range c.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("etcd: endpoint %q: want http://HOST:PORT or https://HOST:PORT", endpoint)
		}
		if u.Scheme == "http" && c.User != "" && !loopback(u.Hostname()) {
			return fmt.Errorf("etcd: endpoint %q: a password is sent over https only", endpoint)
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("etcd: certificate and key are needed together")
	}
	if (c.User == "") != (c.PasswordFile == "") {
		return errors.New("etcd: user and password file are needed together")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	c.Prefix = "/" + strings.Trim(c.Prefix, "/")
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Limits of talking to etcd.
const (
	requestTimeout = 5 * time.Second
	maxMessage     = 64 << 20 // of an answer; a page of a list is far smaller
	longestPause   = 3 * time.Second
)

// Client makes a client. With a user it waits until etcd has taken the password; without, nothing is dialled yet.
func (c Connection) Client(ctx context.Context) (*clientv3.Client, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	config := clientv3.Config{
		Endpoints: c.Endpoints, Context: ctx, DialTimeout: requestTimeout, MaxCallRecvMsgSize: maxMessage,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, Logger: zap.NewNop(), Username: c.User,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: requestTimeout,
		}), grpc.WithContextDialer(dial)},
	}
	if c.PasswordFile != "" {
		password, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("etcd: password: %w", err)
		}
		config.Password = strings.TrimRight(string(password), "\r\n")
	}
	var err error
	if config.TLS, err = c.tls(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return client, nil
}

// dial takes the address as etcd's resolver gives it.
func dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// tls is nil for http.
func (c Connection) tls() (*tls.Config, error) {
	if !strings.HasPrefix(c.Endpoints[0], "https:") {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		data, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("etcd: CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("etcd: CA: %s: no certificate in it", c.CA)
		}
	}
	if c.Cert != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			return &pair, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("etcd: certificate: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

// Config of the source.
type Config struct {
	Connection Connection
	// GracePeriod is how long a workload whose lease ended stays listed, unhealthy; 0 = 10 s. If most ended together,
	// they stay as they were for three times as long.
	GracePeriod time.Duration
	// LeaseTTL of the records that the agent writes of its sidecars, whole seconds; 0 = 60 s.
	LeaseTTL time.Duration
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

func (c *Config) validate() error {
	if c.Log == nil || c.Metrics == nil {
		return errors.New("etcd: log and metrics are needed")
	}
	if c.GracePeriod < 0 || c.LeaseTTL < 0 {
		return errors.New("etcd: grace period and lease must not be negative")
	}
	if c.GracePeriod == 0 {
		c.GracePeriod = 10 * time.Second
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = time.Minute
	}
	return c.Connection.validate()
}
