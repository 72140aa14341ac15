package report

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connected  prometheus.Gauge
	pending    prometheus.Gauge
	updates    prometheus.Counter
	objects    prometheus.Counter
	rejections prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "periplus_agent_report_" + name, Help: help})
		r.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "periplus_agent_report_" + name, Help: help})
		r.MustRegister(c)
		return c
	}
	return &metrics{
		connected:  gauge("connected", "1 while the agent has a report stream to a controller."),
		pending:    gauge("pending_objects", "Objects of the own cluster that no controller has acknowledged yet."),
		updates:    counter("updates_total", "Updates sent."),
		objects:    counter("objects_total", "Objects sent or deleted in updates."),
		rejections: counter("rejections_total", "Objects of the own cluster that a controller refused."),
	}
}
