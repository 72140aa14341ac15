package trust

import "github.com/prometheus/client_golang/prometheus"

// workloadMetrics are those of one WorkloadSource, which is itself the collector.
type workloadMetrics struct {
	expiry   prometheus.Gauge
	domains  prometheus.Gauge
	updates  prometheus.Counter
	failures prometheus.Counter
	warnings prometheus.Counter
}

func newWorkloadMetrics() workloadMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return workloadMetrics{
		expiry:   gauge("periplus_trust_svid_expiry_timestamp_seconds", "When the own X.509-SVID expires, in Unix time."),
		domains:  gauge("periplus_trust_domains", "Trust domains whose members can be verified, the own one included."),
		updates:  counter("periplus_trust_updates_total", "Versions of identity material taken from the Workload API."),
		failures: counter("periplus_trust_failures_total", "Lost streams and unusable answers of the Workload API."),
		warnings: counter("periplus_trust_expiry_warnings_total", "Times the SVID was found not renewed at 50, 25, 10 and 0 percent of its life left."),
	}
}

func (m workloadMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.expiry, m.domains, m.updates, m.failures, m.warnings}
}

func (m workloadMetrics) describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

func (m workloadMetrics) collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}
