package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Config of the ingest; Store, Proposer, Board, Issuer, Log and Metrics are needed.
type Config struct {
	Store    *mesh.Store
	Proposer Proposer
	Board    *observe.Board
	Issuer   *pki.Issuer
	// Controllers are the mesh addresses of all replicas, which agents are told of; nil: they are not.
	Controllers func() []string
	Log         *slog.Logger
	Metrics     prometheus.Registerer
	// Quotas of one cluster; 0 is 100 000 endpoints, 20 000 services (and twice as many slices), 256 gateways and
	// 128 MiB of objects as they are encoded.
	MaxEndpoints, MaxServices, MaxGateways, MaxBytes int
	// ObjectsPerSecond and Burst bound what one cluster reports; more waits. 0 is 2 000 and 20 000.
	ObjectsPerSecond, Burst float64
}

func (c *Config) validate() error {
	if c.Store == nil || c.Proposer == nil || c.Board == nil || c.Issuer == nil || c.Log == nil || c.Metrics == nil {
		return errors.New("Store, Proposer, Board, Issuer, Log and Metrics are needed")
	}
	if c.Controllers == nil {
		c.Controllers = func() []string { return nil }
	}
	c.MaxEndpoints, c.MaxServices = orDefault(c.MaxEndpoints, 100_000), orDefault(c.MaxServices, 20_000)
	c.MaxGateways, c.MaxBytes = orDefault(c.MaxGateways, 256), orDefault(c.MaxBytes, 128<<20)
	c.ObjectsPerSecond, c.Burst = orDefault(c.ObjectsPerSecond, 2_000), orDefault(c.Burst, 20_000)
	return nil
}

func orDefault[T int | float64](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Ingest serves AgentService.Report.
type Ingest struct {
	config    Config
	coalescer *coalescer
	metrics   metrics
}

type metrics struct {
	objects           prometheus.Counter
	rejected          *prometheus.CounterVec
	entries, sessions prometheus.Counter
	dropped           prometheus.Counter
	parts             prometheus.Histogram
}

// New checks the configuration.
func New(c Config) (*Ingest, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	m := metrics{
		objects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_ingest_objects_total", Help: "Upserts and deletes that agents reported and the mesh accepted.",
		}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "periplus_ingest_rejected_total", Help: "Objects that agents reported and the mesh rejected.",
		}, []string{"reason"}),
		sessions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_ingest_sessions_total", Help: "Report streams that were accepted.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_ingest_load_reports_dropped_total", Help: "Load reports of agents that were too large.",
		}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_ingest_entries_total", Help: "Raft entries that reports were coalesced into.",
		}),
		parts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "periplus_ingest_entry_parts", Help: "Reports in one raft entry.", Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
	}
	for _, collector := range []prometheus.Collector{m.objects, m.rejected, m.sessions, m.dropped, m.entries, m.parts} {
		if err := c.Metrics.Register(collector); err != nil {
			return nil, fmt.Errorf("ingest: %w", err)
		}
	}
	i := &Ingest{config: c, metrics: m}
	i.coalescer = newCoalescer(c.Proposer, func(parts int) {
		m.entries.Inc()
		m.parts.Observe(float64(parts))
	})
	return i, nil
}

// Run coalesces until ctx is done. No report is accepted before.
func (i *Ingest) Run(ctx context.Context) error { return i.coalescer.run(ctx) }
