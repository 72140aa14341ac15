package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/proxy/record"
)

// Config of a Telemetry.
type Config struct {
	// Own describes the proxy's own workload in labels.
	Own Workload
	// Registry receives the metrics; nil: they are counted and shown nowhere.
	Registry prometheus.Registerer
	// AccessLog receives one line per exchange; nil: none.
	AccessLog io.Writer
	// Format of the access log; the zero value is Istio's default text.
	Format Format
	// AccessLogBytes bounds what is buffered; lines beyond are dropped and counted. 0: 1 MiB.
	AccessLogBytes int
	// MaxSeries bounds the combinations of labels; exchanges beyond are counted with every variable label
	// "other". 0: 2000.
	MaxSeries int
	Log       *slog.Logger // nil: discards
}

// Workload describes one side of an exchange; "" is shown as "unknown".
type Workload struct {
	Name, Namespace, Principal, App, Version, Cluster, Region, Zone string
}

func (c *Config) validate() error {
	if c.AccessLogBytes < 0 || c.MaxSeries < 0 {
		return errors.New("telemetry: config: limits must not be negative")
	}
	if c.AccessLogBytes == 0 {
		c.AccessLogBytes = 1 << 20
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = 2000
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Telemetry observes exchanges. Safe for concurrent use.
type Telemetry struct {
	metrics *metrics
	log     *accessLog // nil: none
	load    *load
}

// New registers the metrics. Run must be called for the access log to be written.
func New(c Config) (*Telemetry, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(c)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{metrics: m, load: newLoad()}
	if c.AccessLog != nil {
		t.log = newAccessLog(c, m.dropped)
	}
	return t, nil
}

// Observe counts and logs one exchange.
func (t *Telemetry) Observe(r *record.Record) {
	t.metrics.observe(r)
	t.load.observe(r)
	if t.log != nil {
		t.log.observe(r)
	}
}

// Open implements record.Opener.
func (t *Telemetry) Open(r *record.Record) { t.metrics.open(r) }

// Run writes the access log until ctx ends, then what is left of it, and returns nil.
func (t *Telemetry) Run(ctx context.Context) error {
	if t.log == nil {
		<-ctx.Done()
		return nil
	}
	return t.log.run(ctx)
}
