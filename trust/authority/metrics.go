package authority

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	issued   prometheus.Counter
	refused  prometheus.Counter
	streams  prometheus.Gauge
	sequence prometheus.Gauge
	expiry   prometheus.Gauge
}

// newMetrics registers nothing when registry is nil.
func newMetrics(registry *prometheus.Registry) *metrics {
	var r prometheus.Registerer
	if registry != nil {
		r = registry
	}
	f := promauto.With(r)
	return &metrics{
		issued:   f.NewCounter(prometheus.CounterOpts{Name: "periplus_authority_svids_total", Help: "SVIDs issued."}),
		refused:  f.NewCounter(prometheus.CounterOpts{Name: "periplus_authority_refused_total", Help: "Workload API calls of processes that no entry matches."}),
		streams:  f.NewGauge(prometheus.GaugeOpts{Name: "periplus_authority_streams", Help: "Open Workload API streams."}),
		sequence: f.NewGauge(prometheus.GaugeOpts{Name: "periplus_authority_bundle_sequence", Help: "Sequence number of the own bundle."}),
		expiry:   f.NewGauge(prometheus.GaugeOpts{Name: "periplus_authority_root_expiry_timestamp_seconds", Help: "When the active root expires, in Unix time."}),
	}
}
