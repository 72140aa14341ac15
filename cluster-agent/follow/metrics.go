package follow

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	updated    prometheus.Gauge
	refusedNow prometheus.Gauge
	refused    prometheus.Counter
	untrusted  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		updated: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_feed_updated_timestamp_seconds", Help: "When a controller last sent anything of other clusters, Unix time; 0: never in this process.",
		}),
		refusedNow: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_feed_refused_objects", Help: "Objects of other clusters of which an older version is in force because the newest was refused.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_feed_refused_total", Help: "Objects of other clusters that were refused.",
		}),
		untrusted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_bundles_refused_total", Help: "Bundles refused for lack of continuity with the one held. Not zero: a human must look.",
		}),
	}
	r.MustRegister(m.updated, m.refusedNow, m.refused, m.untrusted)
	return m
}
