package kube

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
)

type metrics struct {
	synced      prometheus.Gauge
	initialSync prometheus.Gauge
	watching    *prometheus.GaugeVec   // resource
	heard       *prometheus.GaugeVec   // resource
	objects     *prometheus.GaugeVec   // resource
	events      *prometheus.CounterVec // resource
	failures    *prometheus.CounterVec // resource, reason
	converted   prometheus.Histogram
	steps       prometheus.Counter
	leftOut     *prometheus.GaugeVec   // reason
	rejections  *prometheus.CounterVec // reason
	regions     prometheus.Gauge
	exports     *prometheus.GaugeVec // valid
	conditions  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	const prefix = "periplus_agent_kubernetes_"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	m := &metrics{
		synced:      gauge("synced", "1 once every resource was listed and told: what is not there does not exist."),
		initialSync: gauge("initial_sync_seconds", "How long that took."),
		watching:    gauges("watching", "1 while the resource is watched; 0: its API server cannot be reached or refuses, and what is known stays in force.", "resource"),
		heard:       gauges("heard_timestamp_seconds", "When the API server last said anything of the resource, bookmarks included, Unix time.", "resource"),
		objects:     gauges("objects", "Objects of the resource.", "resource"),
		events:      counters("events_total", "Objects that the API server told, in lists and in watches.", "resource"),
		failures:    counters("failures_total", "Lists and watches that failed, by reason: unreachable, expired, forbidden, absent, other.", "resource", "reason"),
		converted: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "conversion_seconds", Help: "Time from taking the changes to having told them.", Buckets: prometheus.ExponentialBuckets(.0001, 4, 9),
		}),
		steps:      prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "steps_total", Help: "Steps of the mesh state that the source made."}),
		leftOut:    gauges("left_out", "Services, ports, slices and endpoints that are left out now, by reason.", "reason"),
		rejections: counters("rejections_total", "Services, ports, slices and endpoints that were newly left out, by reason.", "reason"),
		regions:    gauge("foreign_region_nodes", "Nodes whose label names another region than the cluster is registered in; they count to the registered one."),
		exports:    gauges("exports", "ServiceExports, by their condition Valid.", "valid"),
		conditions: counters("export_conditions_total", "Attempts to write the conditions of a ServiceExport, by outcome: written, refused, failed.", "outcome"),
	}
	for _, c := range []prometheus.Collector{
		m.synced, m.initialSync, m.watching, m.heard, m.objects, m.events, m.failures, m.converted, m.steps, m.leftOut, m.rejections,
		m.regions, m.exports, m.conditions,
	} {
		r.MustRegister(c)
	}
	for _, reason := range convert.Reasons() {
		m.leftOut.WithLabelValues(string(reason))
		m.rejections.WithLabelValues(string(reason))
	}
	return m
}
