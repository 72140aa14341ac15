package workloadapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	issued  prometheus.Counter
	refused prometheus.Counter
	streams prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		issued:  f.NewCounter(prometheus.CounterOpts{Name: "periplus_authority_svids_total", Help: "SVIDs issued."}),
		refused: f.NewCounter(prometheus.CounterOpts{Name: "periplus_authority_refused_total", Help: "Workload API calls of processes that no entry matches."}),
		streams: f.NewGauge(prometheus.GaugeOpts{Name: "periplus_authority_streams", Help: "Open Workload API streams."}),
	}
}
