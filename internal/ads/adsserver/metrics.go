package adsserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// serverMetrics carry the names that operators of istiod know, where the meaning is equal.
type serverMetrics struct {
	streams     prometheus.Gauge
	pushes      map[xds.Type]prometheus.Counter
	rejects     map[xds.Type]prometheus.Counter
	allRejects  prometheus.Counter
	pushTime    prometheus.Histogram
	convergence prometheus.Histogram
	size        prometheus.Histogram
}

// short are the label values of types; the set is closed.
var short = [...]struct {
	t    xds.Type
	name string
}{{xds.Cluster, "cds"}, {xds.Endpoints, "eds"}, {xds.Listener, "lds"}, {xds.Route, "rds"}, {xds.MeshObject, "mesh"}}

func newServerMetrics(r prometheus.Registerer) *serverMetrics {
	pushes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pilot_xds_pushes", Help: "Responses sent, by type.",
	}, []string{"type"})
	rejects := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "periplus_ads_rejects_total", Help: "Responses that clients rejected, by type.",
	}, []string{"type"})
	m := &serverMetrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pilot_xds", Help: "Open xDS streams.",
		}),
		pushes: make(map[xds.Type]prometheus.Counter), rejects: make(map[xds.Type]prometheus.Counter),
		allRejects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pilot_total_xds_rejects", Help: "Responses that clients rejected.",
		}),
		pushTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_xds_push_time", Help: "Seconds to build and send one response.",
			Buckets: []float64{.0001, .001, .01, .1, 1, 3, 5, 10, 20, 30},
		}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_convergence_time", Help: "Seconds from a change to the answer of a client.",
			Buckets: []float64{.001, .01, .1, .5, 1, 3, 5, 10, 20, 30},
		}),
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_xds_config_size_bytes", Help: "Size of a response's resources.",
			Buckets: []float64{1e3, 1e4, 1e5, 1e6, 4e6},
		}),
	}
	for _, s := range short {
		m.pushes[s.t], m.rejects[s.t] = pushes.WithLabelValues(s.name), rejects.WithLabelValues(s.name)
	}
	if r != nil {
		r.MustRegister(m.streams, pushes, rejects, m.allRejects, m.pushTime, m.convergence, m.size)
	}
	return m
}

func (m *serverMetrics) pushed(t xds.Type, size int, took time.Duration) {
	m.pushes[t].Inc()
	m.pushTime.Observe(took.Seconds())
	m.size.Observe(float64(size))
}
