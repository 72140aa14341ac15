package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the sidecar itself; those of requests are telemetry's.
type metrics struct {
	refused prometheus.Counter
	updated prometheus.Gauge
}

func newMetrics(s *sidecar) (*metrics, error) {
	m := &metrics{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_proxy_config_refused_total", Help: "Updates of which a resource was refused.",
		}),
		updated: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_proxy_config_updated_timestamp_seconds", Help: "When the configuration was last updated.",
		}),
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	open := gauge("periplus_proxy_connections", "Open downstream connections.", func() int {
		in, _ := s.in.listeners.count()
		out, _ := s.out.listeners.count()
		return in + out
	})
	unbound := gauge("periplus_proxy_listeners_unbound", "Listeners that cannot be bound and are tried again.", func() int {
		_, in := s.in.listeners.count()
		_, out := s.out.listeners.count()
		return in + out
	})
	ready := gauge("periplus_proxy_ready", "1 once the configuration is there and its listeners are bound.", func() int {
		if s.ready.Latest() {
			return 1
		}
		return 0
	})
	var errs []error
	for _, c := range []prometheus.Collector{m.refused, m.updated, open, unbound, ready} {
		errs = append(errs, s.config.Metrics.Register(c))
	}
	return m, errors.Join(errs...)
}
