package federate

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	done     prometheus.Gauge
	domains  prometheus.Gauge
	failures prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		done: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_federation_timestamp_seconds", Help: "When the SPIRE server was last found or made to be federated as the mesh says, Unix time.",
		}),
		domains: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_federated_domains", Help: "Foreign trust domains that the SPIRE server holds or shall hold.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_federation_failures_total", Help: "Attempts to federate that failed; each is repeated.",
		}),
	}
	r.MustRegister(m.done, m.domains, m.failures)
	return m
}
