package telemetry

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// upstream is what load is counted by.
type upstream struct {
	cluster, region, zone, subzone string
	priority                       uint32
}

type loadCounts struct {
	success, errors, dropped atomic.Uint64
	buckets                  [latency.Buckets]atomic.Uint64
	running                  uint64 // written by take alone
}

// load counts until it is taken.
type load struct {
	mu     sync.RWMutex // held for reading while a counter is written, so that nothing is added to taken ones
	counts map[upstream]*loadCounts
}

func newLoad() *load { return &load{counts: map[upstream]*loadCounts{}} }

// observe counts what left this proxy for another; what arrived is counted by the sender.
func (l *load) observe(r *record.Record) {
	if r.Reporter != record.Source || r.Cluster == "" {
		return
	}
	key := upstream{r.Cluster, r.Host.Region, r.Host.Zone, r.Host.Subzone, r.Host.Priority}
	l.mu.RLock()
	if c := l.counts[key]; c != nil {
		c.add(r)
		l.mu.RUnlock()
		return
	}
	l.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	key.cluster, key.region, key.zone, key.subzone = strings.Clone(key.cluster), strings.Clone(key.region), strings.Clone(key.zone), strings.Clone(key.subzone)
	l.entry(key).add(r)
}

func (c *loadCounts) add(r *record.Record) {
	switch {
	case r.Flags&record.Dropped != 0:
		c.dropped.Add(1)
		return
	case failed(r):
		c.errors.Add(1)
	default:
		c.success.Add(1)
	}
	c.buckets[latency.Index(r.Duration)].Add(1)
}

// upstreamFault are the flags that make a TCP connection, or a request without status, a failure of the upstream.
const upstreamFault = record.NoHealthyUpstream | record.ConnectFailure | record.Overflow | record.NoCluster | record.RemoteReset |
	record.ConnectionTermination | record.Timeout | record.UpstreamProtocol

// grpcFault are the statuses that mean 5xx (as Envoy's gRPC statistics have it): unknown, deadline exceeded,
// unimplemented, internal, unavailable, data loss.
const grpcFault = 1<<2 | 1<<4 | 1<<12 | 1<<13 | 1<<14 | 1<<15

func failed(r *record.Record) bool {
	if r.Protocol == record.TCP || r.Code == 0 {
		return r.Flags&upstreamFault != 0
	}
	return r.Code >= 500 || r.GRPC > 0 && r.GRPC < 17 && grpcFault>>r.GRPC&1 == 1
}

// take returns and forgets what was counted, as LRS wants it, sorted, with what runs.
func (l *load) take(interval time.Duration, inProgress func(func(Running))) []*endpointv3.ClusterStats {
	l.mu.Lock()
	counts := l.counts
	l.counts = make(map[upstream]*loadCounts, len(counts))
	l.mu.Unlock()
	inProgress(func(r Running) {
		key := upstream{r.Cluster, r.Region, r.Zone, r.Subzone, r.Priority}
		if counts[key] == nil {
			counts[key] = new(loadCounts)
		}
		counts[key].running += r.Requests
	})
	byCluster := map[string]*endpointv3.ClusterStats{}
	for key, c := range counts {
		stats := byCluster[key.cluster]
		if stats == nil {
			stats = &endpointv3.ClusterStats{ClusterName: key.cluster, LoadReportInterval: durationpb.New(interval)}
			byCluster[key.cluster] = stats
		}
		stats.TotalDroppedRequests += c.dropped.Load()
		if locality := c.report(key); locality.TotalIssuedRequests+locality.TotalRequestsInProgress > 0 {
			stats.UpstreamLocalityStats = append(stats.UpstreamLocalityStats, locality)
		}
	}
	var out []*endpointv3.ClusterStats
	for _, stats := range byCluster {
		slices.SortFunc(stats.UpstreamLocalityStats, compareLocality)
		out = append(out, stats)
	}
	slices.SortFunc(out, func(a, b *endpointv3.ClusterStats) int { return cmp.Compare(a.ClusterName, b.ClusterName) })
	return out
}

func compareLocality(a, b *endpointv3.UpstreamLocalityStats) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Region, b.Locality.Region),
		cmp.Compare(a.Locality.Zone, b.Locality.Zone), cmp.Compare(a.Locality.SubZone, b.Locality.SubZone))
}

func (c *loadCounts) report(key upstream) *endpointv3.UpstreamLocalityStats {
	stats := &endpointv3.UpstreamLocalityStats{
		Locality:                &corev3.Locality{Region: key.region, Zone: key.zone, SubZone: key.subzone},
		Priority:                key.priority,
		TotalSuccessfulRequests: c.success.Load(), TotalErrorRequests: c.errors.Load(),
		TotalRequestsInProgress: c.running,
	}
	stats.TotalIssuedRequests = stats.TotalSuccessfulRequests + stats.TotalErrorRequests
	for i := range c.buckets {
		if n := c.buckets[i].Load(); n > 0 {
			stats.LoadMetricStats = append(stats.LoadMetricStats, &endpointv3.EndpointLoadMetricStats{
				MetricName: "latency_bucket_" + strconv.Itoa(i), NumRequestsFinishedWithMetric: n, TotalMetricValue: float64(n),
			})
		}
	}
	return stats
}

// restore puts counts back that could not be sent, so that a lost stream loses none.
func (l *load) restore(reports []*endpointv3.ClusterStats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, stats := range reports {
		if stats.TotalDroppedRequests > 0 {
			l.entry(upstream{cluster: stats.ClusterName}).dropped.Add(stats.TotalDroppedRequests)
		}
		for _, locality := range stats.UpstreamLocalityStats {
			l.restoreLocality(stats.ClusterName, locality)
		}
	}
}

// entry needs mu.
func (l *load) entry(key upstream) *loadCounts {
	c := l.counts[key]
	if c == nil {
		c = new(loadCounts)
		l.counts[key] = c
	}
	return c
}

func (l *load) restoreLocality(cluster string, s *endpointv3.UpstreamLocalityStats) {
	key := upstream{cluster, s.Locality.GetRegion(), s.Locality.GetZone(), s.Locality.GetSubZone(), s.Priority}
	c := l.entry(key)
	c.success.Add(s.TotalSuccessfulRequests)
	c.errors.Add(s.TotalErrorRequests)
	for _, metric := range s.LoadMetricStats {
		i, err := strconv.Atoi(strings.TrimPrefix(metric.MetricName, "latency_bucket_"))
		if err == nil && i >= 0 && i < latency.Buckets {
			c.buckets[i].Add(metric.NumRequestsFinishedWithMetric)
		}
	}
}
