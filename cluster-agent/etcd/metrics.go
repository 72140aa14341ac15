package etcd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	connected prometheus.Gauge
	heard     prometheus.Gauge
	records   *prometheus.GaugeVec   // state: there, refused, lost, held
	refused   prometheus.Counter     //
	lists     *prometheus.CounterVec // reason: start, compacted, rewound, silent, error
	leases    prometheus.Counter
	announced prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "periplus_agent_etcd_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "periplus_agent_etcd_" + name, Help: help}
	}
	m := &metrics{
		connected: gauge("connected", "1 while etcd answers."),
		heard:     gauge("heard_timestamp_seconds", "When etcd was heard last, Unix time."),
		records: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "periplus_agent_etcd_records", Help: "Keys of the cluster: there, refused (an older value may be in force), lost (about to be withdrawn), held (kept although lost).",
		}, []string{"state"}),
		refused:   prometheus.NewCounter(counter("records_refused_total", "Values that were refused.")),
		lists:     prometheus.NewCounterVec(counter("lists_total", "Complete reads, by why the watch could not go on."), []string{"reason"}),
		leases:    prometheus.NewCounter(counter("leases_total", "Leases taken for the records of announced sidecars; more than one: the first was lost.")),
		announced: gauge("sidecar_records", "Records of announced sidecars in etcd under this agent's lease."),
	}
	r.MustRegister(m.connected, m.heard, m.records, m.refused, m.lists, m.leases, m.announced)
	return m
}

func (m *metrics) hear(now time.Time) { m.heard.Set(float64(now.UnixMilli()) / 1000) }

func (m *metrics) count(r *registry) {
	states := map[string]int{"there": 0, "refused": 0, "lost": 0, "held": 0}
	for _, e := range r.entries {
		switch {
		case e.held:
			states["held"]++
		case !e.lost.IsZero():
			states["lost"]++
		case e.reason != "":
			states["refused"]++
		default:
			states["there"]++
		}
	}
	for state, n := range states {
		m.records.WithLabelValues(state).Set(float64(n))
	}
}
