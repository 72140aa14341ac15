package adsclient

import "github.com/prometheus/client_golang/prometheus"

// clientMetrics are one client's.
type clientMetrics struct {
	connected prometheus.Gauge
	preferred prometheus.Gauge
	received  prometheus.Counter
	rejected  prometheus.Counter
}

func newClientMetrics(r prometheus.Registerer) *clientMetrics {
	m := &clientMetrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_ads_client_connected", Help: "1 while a stream to a control plane is open.",
		}),
		preferred: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_ads_client_preferred", Help: "1 while that is the preferred control plane.",
		}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_ads_client_resources_total", Help: "Resources received.",
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_ads_client_rejects_total", Help: "Responses that were rejected.",
		}),
	}
	if r != nil {
		r.MustRegister(m.connected, m.preferred, m.received, m.rejected)
	}
	return m
}
