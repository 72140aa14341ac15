package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust"
)

// Config is what a sidecar needs.
type Config struct {
	// Name of the workload's endpoint, unique in its service and cluster. Required, as is Cluster.
	Name, Cluster string
	// Service of the workload, "catalog.shop".
	Service string

	// Bind is the address of its listeners, and the one that other sidecars reach it at. Required.
	Bind netip.Addr
	// OutboundPort takes HTTP by authority. 0: none.
	OutboundPort uint16
	// TCPOutbound asks for a listener at Bind on the port of each TCP service.
	TCPOutbound bool
	// Inbound are the ports that the workload serves.
	Inbound []Inbound

	// Network that Bind is in, and the place that the workload stands in.
	Network               string
	Region, Zone, Subzone string
	Labels                map[string]string
	// Weight relative to other endpoints of the locality. 0: 1.
	Weight uint32

	// WorkloadSocket is the SPIFFE Workload API, unix:///path. Source, if not nil, replaces it.
	WorkloadSocket string
	Source         trust.Source
	// Agent and Controllers are xDS servers, host:port: the agent is preferred, then controllers in this order. The
	// agent also takes the announcement and load reports; "" sends none.
	Agent       string
	Controllers []string
	// ControlPlane is the trust domain of the controllers; required if there are any.
	ControlPlane string

	// AdminListener serves Envoy's admin interface over plain HTTP; nil: none.
	AdminListener net.Listener
	// DataDir holds the last good resources; "" keeps none.
	DataDir string
	// AccessLog receives a line per request in Istio's format; nil: none. AccessLogJSON makes it JSON.
	AccessLog     io.Writer
	AccessLogJSON bool

	// DrainTime bounds the wait for running requests. 0: 30 s. DrainDelay is how long a draining sidecar still takes
	// new requests, so that clients learn of it before: 0: 1 s.
	DrainTime, DrainDelay time.Duration
	// HealthPath is asked of each application port by GET and must answer below 400; "": a TCP connection is enough.
	HealthPath string
	// HealthInterval of the application's probe. 0: 1 s.
	HealthInterval time.Duration
	// WarmTime is how long a sidecar waits for resources that its configuration refers to before it calls itself
	// ready without them. 0: 15 s, as in Envoy.
	WarmTime time.Duration

	Log *slog.Logger // nil: discards
	// LogLevel, if the logger has one, lets the admin interface change it; may be nil.
	LogLevel *slog.LevelVar
	Metrics  *prometheus.Registry // nil: one of its own

	plane spiffeid.TrustDomain // ControlPlane, parsed
}

// Inbound is a port that the workload serves.
type Inbound struct {
	Service      string // name.namespace
	PortName     string
	ServicePort  uint16
	Protocol     string // http, http2, grpc, tcp, tls
	EndpointPort uint16 // where the sidecar listens, at Bind
	App          string // host:port of the application
}

func (c *Config) validate() error {
	if err := c.required(); err != nil {
		return fmt.Errorf("sidecar configuration: %w", err)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Weight = max(c.Weight, 1)
	setDefault(&c.DrainTime, 30*time.Second)
	setDefault(&c.DrainDelay, time.Second)
	setDefault(&c.HealthInterval, time.Second)
	setDefault(&c.WarmTime, 15*time.Second)
	return nil
}

func setDefault(field *time.Duration, value time.Duration) {
	if *field <= 0 {
		*field = value
	}
}

func (c *Config) required() (err error) {
	switch {
	case c.Name == "" || c.Cluster == "":
		return errors.New("name and cluster are required")
	case strings.Contains(c.Name+c.Cluster, "~"):
		return errors.New("name and cluster must not contain '~'")
	case !c.Bind.IsValid():
		return errors.New("bind address is required")
	case c.Source == nil && c.WorkloadSocket == "":
		return errors.New("workload socket is required: without identity there is no mTLS")
	case c.Agent == "" && len(c.Controllers) == 0:
		return errors.New("an agent or a controller is required")
	}
	if len(c.Controllers) > 0 {
		if c.plane, err = spiffeid.TrustDomainFromString(c.ControlPlane); err != nil {
			return fmt.Errorf("control plane: %w", err)
		}
	}
	for _, in := range c.Inbound {
		if _, _, err := net.SplitHostPort(in.App); err != nil || in.EndpointPort == 0 || in.ServicePort == 0 {
			return fmt.Errorf("inbound port %q needs a service port, an endpoint port and host:port of the application", in.PortName)
		}
	}
	return nil
}

// namespace of the workload, "" if the service has none.
func (c *Config) namespace() string {
	_, namespace, _ := strings.Cut(c.Service, ".")
	return namespace
}
