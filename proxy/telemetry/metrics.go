package telemetry

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/proxy/record"
)

// labels are those of Istio's standard metrics, and the localities.
var labels = []string{
	"reporter",
	"source_workload", "source_workload_namespace", "source_principal", "source_app", "source_version",
	"source_canonical_service", "source_canonical_revision", "source_cluster", "source_region", "source_zone",
	"destination_workload", "destination_workload_namespace", "destination_principal", "destination_app",
	"destination_version", "destination_canonical_service", "destination_canonical_revision", "destination_cluster",
	"destination_region", "destination_zone",
	"destination_service", "destination_service_name", "destination_service_namespace",
	"request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy",
}

// tcpLabels leave out what only requests have.
var tcpLabels = append(append([]string(nil), labels[:24]...), "request_protocol", "response_flags", "connection_security_policy")

// durationBuckets and byteBuckets are Envoy's, as Istio exposes them.
var (
	durationBuckets = []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}
	byteBuckets     = durationBuckets
)

// series is what tells exchanges apart. Comparable; its strings belong to somebody else until it is copied. Which pod
// or endpoint it was is none of it: a workload is who the certificate says, so that a restart makes no new series.
type series struct {
	reporter    record.Reporter
	protocol    record.Protocol
	mutualTLS   bool
	code, grpc  int
	flags       record.Flags
	cluster     string
	peer        string
	region      string
	zone        string
	meshCluster string
}

// handles are the metrics of one series.
type handles struct {
	requests                   prometheus.Counter
	duration, request, respond prometheus.Observer
	sent, received             prometheus.Counter
	opened, closed             prometheus.Counter
}

type metrics struct {
	own                        Workload
	requests                   *prometheus.CounterVec
	duration, request, respond *prometheus.HistogramVec
	sent, received             *prometheus.CounterVec
	opened, closed             *prometheus.CounterVec
	denied                     prometheus.Counter
	dropped, overflow          prometheus.Counter
	max                        int

	mu    sync.RWMutex
	known map[series]*handles // guarded by mu
}

func newMetrics(c Config) (*metrics, error) {
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	single := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		own:      c.Own,
		requests: counter("istio_requests_total", "Requests.", labels),
		duration: histogram("istio_request_duration_milliseconds", "Duration of requests.", durationBuckets),
		request:  histogram("istio_request_bytes", "Size of request bodies.", byteBuckets),
		respond:  histogram("istio_response_bytes", "Size of response bodies.", byteBuckets),
		sent:     counter("istio_tcp_sent_bytes_total", "Bytes sent as response over TCP connections.", tcpLabels),
		received: counter("istio_tcp_received_bytes_total", "Bytes received as request over TCP connections.", tcpLabels),
		opened:   counter("istio_tcp_connections_opened_total", "TCP connections opened.", tcpLabels),
		closed:   counter("istio_tcp_connections_closed_total", "TCP connections closed.", tcpLabels),
		denied:   single("periplus_proxy_denied_total", "Requests and connections that authorization refused."),
		dropped:  single("periplus_proxy_access_log_dropped_total", "Access log lines dropped because the log was not written fast enough."),
		overflow: single("periplus_proxy_series_overflow_total", "Exchanges counted under the series \"other\" because there were too many."),
		max:      c.MaxSeries, known: map[series]*handles{},
	}
	m.own.Name = cmp.Or(workloadOf(m.own.Principal).Name, m.own.App, m.own.Name)
	var errs []error
	for _, collector := range []prometheus.Collector{m.requests, m.duration, m.request, m.respond, m.sent, m.received,
		m.opened, m.closed, m.denied, m.dropped, m.overflow} {
		errs = append(errs, c.Registry.Register(collector))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) observe(r *record.Record) {
	m.handles(r).observe(r)
	if r.Flags&record.Denied != 0 || strings.HasPrefix(r.Details, "rbac_access_denied") {
		m.denied.Inc()
	}
}

// open counts a TCP connection that lives.
func (m *metrics) open(r *record.Record) { m.handles(r).opened.Inc() }

// handles allocates nothing for a series that is known.
func (m *metrics) handles(r *record.Record) *handles {
	key := series{
		reporter: r.Reporter, protocol: r.Protocol, mutualTLS: r.MutualTLS, code: r.Code, grpc: r.GRPC, flags: r.Flags,
		cluster: r.Cluster, peer: r.Peer,
		region: r.Host.Region, zone: r.Host.Zone, meshCluster: r.Host.Cluster,
	}
	m.mu.RLock()
	h := m.known[key]
	m.mu.RUnlock()
	if h == nil {
		h = m.add(key)
	}
	return h
}

func (h *handles) observe(r *record.Record) {
	if r.Protocol == record.TCP {
		if !r.Opened {
			h.opened.Inc()
		}
		h.closed.Inc()
		h.received.Add(float64(r.RequestBytes))
		h.sent.Add(float64(r.ResponseBytes))
		return
	}
	h.requests.Inc()
	h.duration.Observe(float64(r.Duration) / float64(time.Millisecond))
	h.request.Observe(float64(r.RequestBytes))
	h.respond.Observe(float64(r.ResponseBytes))
}

func (m *metrics) add(key series) *handles {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.known[key]; h != nil {
		return h
	}
	if len(m.known) >= m.max {
		m.overflow.Inc()
		key = series{reporter: key.reporter, protocol: key.protocol, mutualTLS: key.mutualTLS, cluster: "other", grpc: -1}
		if h := m.known[key]; h != nil {
			return h
		}
	}
	key.cluster, key.peer, key.region = strings.Clone(key.cluster), strings.Clone(key.peer), strings.Clone(key.region)
	key.zone, key.meshCluster = strings.Clone(key.zone), strings.Clone(key.meshCluster)
	h := m.resolve(key)
	m.known[key] = h
	return h
}

func (m *metrics) resolve(key series) *handles {
	values := m.values(key)
	if key.protocol == record.TCP {
		values = append(values[:24:24], values[24], values[27], values[28])
		return &handles{
			sent: m.sent.WithLabelValues(values...), received: m.received.WithLabelValues(values...),
			opened: m.opened.WithLabelValues(values...), closed: m.closed.WithLabelValues(values...),
		}
	}
	return &handles{
		requests: m.requests.WithLabelValues(values...), duration: m.duration.WithLabelValues(values...),
		request: m.request.WithLabelValues(values...), respond: m.respond.WithLabelValues(values...),
	}
}

var protocolNames = [...]string{record.HTTP1: "http", record.HTTP2: "http", record.GRPC: "grpc", record.TCP: "tcp"}

// values are in the order of labels.
func (m *metrics) values(key series) []string {
	peer := workloadOf(key.peer)
	source, destination, reporter := m.own, peer, "source"
	service, name, namespace := destinationOf(key.cluster)
	if key.reporter == record.Destination {
		source, destination, reporter = peer, m.own, "destination"
		if name == "" {
			service, name, namespace = "", m.own.App, m.own.Namespace
		}
	} else {
		destination.Name, destination.App = cmp.Or(destination.Name, name), name
		destination.Cluster, destination.Region, destination.Zone = key.meshCluster, key.region, key.zone
	}
	policy := "none"
	if key.mutualTLS {
		policy = "mutual_tls"
	}
	status := ""
	if key.grpc >= 0 {
		status = strconv.Itoa(key.grpc)
	}
	values := append([]string{reporter}, source.values()...)
	values = append(values, destination.values()...)
	for i := range values {
		values[i] = cmp.Or(values[i], "unknown")
	}
	return append(values, cmp.Or(service, name, "unknown"), cmp.Or(name, "unknown"), cmp.Or(namespace, "unknown"),
		protocolNames[key.protocol], strconv.Itoa(key.code), status, key.flags.String(), policy)
}

func (w Workload) values() []string {
	return []string{w.Name, w.Namespace, w.Principal, w.App, w.Version, w.App, cmp.Or(w.Version, "latest"), w.Cluster, w.Region, w.Zone}
}

// workloadOf reads what a SPIFFE ID of the form spiffe://td/ns/<namespace>/sa/<account> says.
func workloadOf(id string) Workload {
	w := Workload{Principal: id}
	_, path, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/ns/")
	if namespace, account, ok := strings.Cut(path, "/sa/"); ok {
		w.Namespace, w.Name, w.App = namespace, account, account
	}
	return w
}

// destinationOf reads an Envoy cluster name of the form direction|port|subset|name.namespace.svc.domain.
func destinationOf(cluster string) (service, name, namespace string) {
	parts := strings.SplitN(cluster, "|", 4)
	if len(parts) < 4 || parts[3] == "" {
		if strings.Contains(cluster, "|") {
			return "", "", ""
		}
		return cluster, cluster, ""
	}
	name, rest, _ := strings.Cut(parts[3], ".")
	namespace, _, _ = strings.Cut(rest, ".")
	return parts[3], name, namespace
}
