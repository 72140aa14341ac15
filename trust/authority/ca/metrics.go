package ca

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	sequence prometheus.Gauge
	expiry   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		sequence: f.NewGauge(prometheus.GaugeOpts{Name: "periplus_authority_bundle_sequence", Help: "Sequence number of the own bundle."}),
		expiry:   f.NewGauge(prometheus.GaugeOpts{Name: "periplus_authority_root_expiry_timestamp_seconds", Help: "When the active root expires, in Unix time."}),
	}
}
