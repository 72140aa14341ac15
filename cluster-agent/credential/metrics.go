package credential

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	expires   prometheus.Gauge
	rotations prometheus.Counter
	failures  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		expires: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_credential_expiry_timestamp_seconds", Help: "When the agent's credential towards the controllers ends, Unix time.",
		}),
		rotations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_credential_rotations_total", Help: "Credentials rotated.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_credential_rotation_failures_total", Help: "Attempts to rotate that failed.",
		}),
	}
	r.MustRegister(m.expires, m.rotations, m.failures)
	return m
}
