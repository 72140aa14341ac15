package eastwest

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/internal/splice"
)

// metrics are the gateway's. Bytes count as they pass, not when a connection ends.
type metrics struct {
	active          atomic.Int64
	sent, received  atomic.Int64
	opened          prometheus.Counter
	connectFailures prometheus.Counter
	closed          map[splice.Reason]prometheus.Counter
	rejected        map[string]prometheus.Counter
	services        prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_gateway_connections_opened_total", Help: "Connections passed on to an endpoint."}),
		connectFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_gateway_connect_failures_total", Help: "Attempts to reach an endpoint that failed."}),
		services: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_gateway_services", Help: "Exported services that the gateway routes to."}),
		closed: map[splice.Reason]prometheus.Counter{}, rejected: map[string]prometheus.Counter{},
	}
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "periplus_gateway_connections_closed_total", Help: "Connections that ended, by reason."}, []string{"reason"})
	for _, reason := range []splice.Reason{splice.Closed, splice.Reset, splice.Idle, splice.Cancelled} {
		m.closed[reason] = closed.WithLabelValues(string(reason))
	}
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "periplus_gateway_rejected_total", Help: "Connections that were not passed on, by reason."}, []string{"reason"})
	for _, reason := range rejectReasons {
		m.rejected[reason] = rejected.WithLabelValues(reason)
	}
	r.MustRegister(m.opened, m.connectFailures, m.services, closed, rejected,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "periplus_gateway_connections_active", Help: "Connections that are open, those whose hello is awaited among them."},
			func() float64 { return float64(m.active.Load()) }),
		bytesCounter("sent", "Bytes from clients to endpoints.", &m.sent),
		bytesCounter("received", "Bytes from endpoints to clients.", &m.received))
	return m
}

func bytesCounter(direction, help string, n *atomic.Int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "periplus_gateway_" + direction + "_bytes_total", Help: help,
	}, func() float64 { return float64(n.Load()) })
}
