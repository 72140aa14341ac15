package eastwest

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/sni"
	"github.com/periplus-mesh/periplus/trust"
)

// Config is what a gateway needs.
type Config struct {
	// Name of the gateway's endpoint, unique in its cluster. Required, as is Cluster.
	Name, Cluster string
	// Bind and Port are where it listens. Port 0: 15443.
	Bind netip.Addr
	Port uint16
	// Advertise is the address that other networks reach it at. Invalid: Bind.
	Advertise netip.Addr
	// Network is the one that it is the way into, and the place it stands in.
	Network, Region, Zone string

	// WorkloadSocket is the SPIFFE Workload API, unix:///path. Source, if not nil, replaces it.
	WorkloadSocket string
	Source         trust.Source
	// Agent and Controllers are xDS servers, host:port: the agent is preferred, then controllers in this order.
	Agent       string
	Controllers []string
	// ControlPlane is the trust domain of the controllers; required if there are any.
	ControlPlane string

	// AdminListener serves plain HTTP: /ready, /healthz, /stats/prometheus, /clusters, /config_dump, /drain. May be nil.
	AdminListener net.Listener
	// DataDir holds the last good resources; "" keeps none.
	DataDir string

	// DrainTime bounds a drain. 0: 45 s.
	DrainTime time.Duration
	// DrainGrace is how long a draining gateway still accepts, from when the agent knows of it, so that clients
	// learn it before. 0: 5 s, but at most a third of DrainTime.
	DrainGrace time.Duration
	// MaxConnections at a time; more are closed at once, so that clients take another gateway. 0: 20 000, or as many as
	// the limit of open files allows, if that is less.
	MaxConnections int
	// MaxPerSource connections from one address at a time. 0: no limit; clients may be behind one NAT address.
	MaxPerSource int
	// Sources are the networks that may connect. Empty: any.
	Sources []netip.Prefix
	// HelloTimeout bounds the arrival of the ClientHello. 0: 10 s, or less if the listener resource says so.
	HelloTimeout time.Duration
	// ConnectTimeout bounds one attempt to reach an endpoint, if the cluster's own is not shorter. 0: 2 s.
	ConnectTimeout time.Duration
	// Attempts is how many endpoints are tried for a connection. 0: 3.
	Attempts int

	Log     *slog.Logger         // nil: discards
	Metrics *prometheus.Registry // nil: one of its own

	plane spiffeid.TrustDomain // ControlPlane, parsed
}

// Defaults of Config.
const (
	defaultPort           = 15443
	defaultDrainTime      = 45 * time.Second
	defaultDrainGrace     = 5 * time.Second
	defaultMaxConnections = 20_000
	defaultHelloTimeout   = 10 * time.Second
	defaultConnectTimeout = 2 * time.Second
	defaultAttempts       = 3
)

func (c *Config) validate() error {
	if err := c.required(); err != nil {
		return fmt.Errorf("gateway configuration: %w", err)
	}
	if !c.Advertise.IsValid() {
		c.Advertise = c.Bind
	}
	if c.Port == 0 {
		c.Port = defaultPort
	}
	setDefault(&c.DrainTime, defaultDrainTime)
	setDefault(&c.DrainGrace, min(defaultDrainGrace, c.DrainTime/3))
	setDefault(&c.MaxConnections, connectionsFor(openFiles()))
	setDefault(&c.HelloTimeout, defaultHelloTimeout)
	setDefault(&c.ConnectTimeout, defaultConnectTimeout)
	setDefault(&c.Attempts, defaultAttempts)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	return nil
}

func (c *Config) required() error {
	switch {
	case c.Name == "" || c.Cluster == "":
		return errors.New("Name and Cluster are required")
	case !c.Bind.IsValid():
		return errors.New("Bind is not an address")
	case c.WorkloadSocket == "" && c.Source == nil:
		return errors.New("WorkloadSocket is required: the gateway shows its own identity to the control plane")
	case c.Agent == "" && len(c.Controllers) == 0:
		return errors.New("an Agent or Controllers are required: a gateway without xDS routes nothing")
	}
	if len(c.Controllers) == 0 {
		return nil
	}
	var err error
	c.plane, err = spiffeid.TrustDomainFromString(c.ControlPlane)
	if err != nil {
		return fmt.Errorf("ControlPlane %q: %w", c.ControlPlane, err)
	}
	return nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// A connection holds two descriptors, and pipes while its bytes move; spareFiles are for those that are kept, the control
// plane and the admin interface.
const filesPerConnection, spareFiles = 3, 2*idlePipes + 128

// connectionsFor is how many connections a process that may open so many files can serve. Beyond it every dial would
// fail, and so would the way to the control plane.
func connectionsFor(files uint64) int {
	if files >= filesPerConnection*defaultMaxConnections+spareFiles {
		return defaultMaxConnections
	}
	return max(1, (int(files)-spareFiles)/filesPerConnection)
}

// openFiles is the limit in force; Go raises it to the hard limit at the start of a process.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxUint64
	}
	return limit.Cur
}

func (c *Config) cacheDir() string {
	if c.DataDir == "" {
		return ""
	}
	return filepath.Join(c.DataDir, "xds")
}

// reasons of refused connections: the label values of periplus_gateway_rejected_total.
const (
	rejectLimit     = "connection_limit"
	rejectPerSource = "source_limit"
	rejectSource    = "source_not_allowed"
	rejectNotTLS    = "not_tls"
	rejectTooLong   = "hello_too_long"
	rejectTimeout   = "hello_timeout"
	rejectMalformed = "hello_malformed"
	rejectNoName    = "no_server_name"
	rejectEncrypted = "encrypted_hello"
	rejectUnknown   = "unknown_name"
	rejectNoHost    = "no_endpoint"
	rejectConnect   = "connect_failed"
	rejectClosed    = "client_closed"
)

var rejectReasons = []string{
	rejectLimit, rejectPerSource, rejectSource, rejectNotTLS, rejectTooLong, rejectTimeout, rejectMalformed,
	rejectNoName, rejectEncrypted, rejectUnknown, rejectNoHost, rejectConnect, rejectClosed,
}

// helloRejection names an error of sni.Peek.
func helloRejection(err error) string {
	for sentinel, reason := range map[error]string{
		sni.ErrNotTLS: rejectNotTLS, sni.ErrTooLong: rejectTooLong, sni.ErrTimeout: rejectTimeout,
		sni.ErrMalformed: rejectMalformed, sni.ErrNoServerName: rejectNoName,
	} {
		if errors.Is(err, sentinel) {
			return reason
		}
	}
	return rejectClosed
}
