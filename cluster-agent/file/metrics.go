package file

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	applied prometheus.Gauge
	bad     prometheus.Gauge
	refused prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		applied: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_services_file_applied_timestamp_seconds", Help: "When a version of the services file last came into force, Unix time.",
		}),
		bad: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_services_file_bad", Help: "1 while the services file has an error and an older version is in force.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_services_file_refused_total", Help: "Versions of the services file that were refused.",
		}),
	}
	r.MustRegister(m.applied, m.bad, m.refused)
	return m
}
