package adsclient

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// Target is one control plane that a client may use.
type Target struct {
	Name    string // for logs and status, "agent"
	Address string // host:port
	// Authorize checks the server's SPIFFE ID. Required with a Source.
	Authorize trust.Authorizer
}

// Config is what [Run] needs. Targets, Node and Apply are required.
type Config struct {
	// Targets, the preferred first. Later ones are used while no earlier one answers.
	Targets []Target
	// TargetUpdates, if not nil, replaces Targets whenever it holds any: the control plane's members change. A stream to
	// one that is no longer among them ends, and another is opened.
	TargetUpdates *watch.Value[[]Target]
	// Source is the own identity; nil speaks plaintext (tests).
	Source trust.Source
	Node   *corev3.Node
	// Wildcard types are subscribed whole.
	Wildcard []xds.Type
	// Follow subscribes the endpoints of received clusters and the routes of received listeners.
	Follow bool
	// Apply is called from one goroutine, in order. An error rejects the update (NACK); the previous content of its
	// resources must then stay in use, of those only that it names if it is made of [Refusal].
	Apply func(Update) error
	// DiskCache is a folder for the last good resources; "" keeps none.
	DiskCache string
	// Log; nil discards.
	Log *slog.Logger
	// Metrics; nil registers nothing.
	Metrics prometheus.Registerer
	// Dial; nil dials TCP.
	Dial ads.DialFunc
	// ConnectTimeout bounds the connection to one target, with its handshake. 0: 1 s.
	ConnectTimeout time.Duration
	// BackoffMin and BackoffMax bound the wait after all targets failed; it doubles, with jitter. 0: 100 ms, 5 s.
	BackoffMin, BackoffMax time.Duration
	// ProbeInterval is how often preferred targets are tried while a later one is in use. 0: 2 s.
	ProbeInterval time.Duration
	// CacheInterval is the shortest time between two writes of the disk cache. 0: 1 s.
	CacheInterval time.Duration
	// Status, if not nil, is given the client's state at each change of target.
	Status *watch.Value[Status]
}

// Status says where a client gets its resources from.
type Status struct {
	// Target is the name of the target in use; "" while there is none.
	Target string
	// Since is when Target came into use or was lost.
	Since time.Time
	// FromDisk says that resources were loaded from the disk cache and no target has been reached yet.
	FromDisk bool
}

func (c *Config) validate() error {
	if len(c.Targets) == 0 || c.Node == nil || c.Apply == nil {
		return errors.New("ads: client: Targets, Node and Apply are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	setDefault(&c.ConnectTimeout, time.Second)
	setDefault(&c.BackoffMin, 100*time.Millisecond)
	setDefault(&c.BackoffMax, 5*time.Second)
	setDefault(&c.ProbeInterval, 2*time.Second)
	setDefault(&c.CacheInterval, time.Second)
	return nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Update is one change to apply: all of it or, with an error, nothing of it.
type Update struct {
	Type    xds.Type
	Upserts []Item
	// Removed resources do not exist (any more), or are no longer followed.
	Removed []string
	// FromDisk is set for what was loaded from the disk cache.
	FromDisk bool
}

// Item is one resource.
type Item struct {
	Name    string
	Version xds.Version
	// Body is the marshalled message of the Update's type. It must not be written.
	Body []byte
}
