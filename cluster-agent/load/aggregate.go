package load

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

const (
	maxRows      = 10_000
	maxNameBytes = 253
	bucketPrefix = "latency_bucket_"
)

// row is what is counted apart.
type row struct {
	service                     mesh.ServiceName
	sourceRegion, sourceZone    string
	destinationRegion, destZone string
}

type counts struct {
	requests, errors uint64
	latency          []uint64
}

// Aggregator adds up rows until somebody takes them. Safe for concurrent use.
type Aggregator struct {
	dropped prometheus.Counter

	mu    sync.Mutex
	since time.Time
	rows  map[row]*counts
}

// NewAggregator counts from now on.
func NewAggregator(now time.Time, r prometheus.Registerer) *Aggregator {
	a := &Aggregator{since: now, rows: map[row]*counts{}, dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "periplus_agent_load_rows_dropped_total", Help: "Load rows of proxies that were malformed or one too many.",
	})}
	r.MustRegister(a.dropped)
	return a
}

// Add counts what a proxy at source sent to one of its clusters.
func (a *Aggregator) Add(source *corev3.Locality, stats *endpointv3.ClusterStats) {
	service, ok := serviceOf(stats.GetClusterName())
	if !ok {
		return // not the mesh's: the proxy's own inbound or static clusters
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range stats.GetUpstreamLocalityStats() {
		to := l.GetLocality()
		r := row{service, source.GetRegion(), source.GetZone(), to.GetRegion(), to.GetZone()}
		if into := a.row(r); into != nil {
			into.add(l)
		} else {
			a.dropped.Inc()
		}
	}
}

// row returns the counts of r, or nil if there are too many rows or a name is too long to be one.
func (a *Aggregator) row(r row) *counts {
	into, ok := a.rows[r]
	if !ok {
		if len(a.rows) >= maxRows || max(len(r.sourceRegion), len(r.sourceZone), len(r.destinationRegion), len(r.destZone)) > maxNameBytes {
			return nil
		}
		into = &counts{}
		a.rows[r] = into
	}
	return into
}

func (c *counts) add(l *endpointv3.UpstreamLocalityStats) {
	c.requests += l.GetTotalSuccessfulRequests() + l.GetTotalErrorRequests()
	c.errors += l.GetTotalErrorRequests()
	for _, metric := range l.GetLoadMetricStats() {
		text, ok := strings.CutPrefix(metric.GetMetricName(), bucketPrefix)
		if !ok {
			continue
		}
		index, err := strconv.Atoi(text)
		if err != nil || index < 0 || index >= latency.Buckets {
			continue
		}
		if c.latency == nil {
			c.latency = make([]uint64, latency.Buckets)
		}
		c.latency[index] += metric.GetNumRequestsFinishedWithMetric()
	}
}

// Take returns the rows since it was called last, in order, and begins anew.
func (a *Aggregator) Take(now time.Time) (rows []*pb.LoadRow, window time.Duration) {
	a.mu.Lock()
	taken, since := a.rows, a.since
	a.rows, a.since = map[row]*counts{}, now
	a.mu.Unlock()
	for r, c := range taken {
		rows = append(rows, &pb.LoadRow{
			Service: meshpb.EncodeServiceName(r.service), SourceRegion: r.sourceRegion, SourceZone: r.sourceZone,
			DestinationRegion: r.destinationRegion, DestinationZone: r.destZone,
			Requests: c.requests, Errors: c.errors, LatencyCounts: c.latency,
		})
	}
	slices.SortFunc(rows, compare)
	return rows, now.Sub(since)
}

func compare(a, b *pb.LoadRow) int {
	return cmp.Or(
		cmp.Compare(a.GetService().GetNamespace(), b.GetService().GetNamespace()),
		cmp.Compare(a.GetService().GetName(), b.GetService().GetName()),
		cmp.Compare(a.GetSourceRegion(), b.GetSourceRegion()), cmp.Compare(a.GetSourceZone(), b.GetSourceZone()),
		cmp.Compare(a.GetDestinationRegion(), b.GetDestinationRegion()), cmp.Compare(a.GetDestinationZone(), b.GetDestinationZone()),
	)
}

// serviceOf reads "outbound|port|subset|name.namespace.svc.cluster.local".
func serviceOf(cluster string) (mesh.ServiceName, bool) {
	parts := strings.Split(cluster, "|")
	if len(parts) != 4 || parts[0] != "outbound" || len(cluster) > 4*maxNameBytes {
		return mesh.ServiceName{}, false
	}
	service, err := mesh.ParseServiceName(parts[3])
	return service, err == nil
}
