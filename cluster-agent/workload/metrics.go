package workload

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	workloads *prometheus.GaugeVec   // state: connected, lost, restored
	refused   *prometheus.CounterVec // reason: name_taken, invalid, service
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		workloads: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "periplus_agent_workloads", Help: "Sidecars and gateways that announced themselves, by state of their stream.",
		}, []string{"state"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "periplus_agent_announcements_refused_total", Help: "Announcements refused, whole or in part.",
		}, []string{"reason"}),
	}
	r.MustRegister(m.workloads, m.refused)
	return m
}
