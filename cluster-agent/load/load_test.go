package load

import (
	"fmt"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/internal/latency"
)

func stats(zone string, ok, failed uint64, bucket string) *endpointv3.ClusterStats {
	return &endpointv3.ClusterStats{
		ClusterName: "outbound|80|v1|catalog.shop.svc.cluster.local",
		UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{
			Locality: &corev3.Locality{Region: "us", Zone: zone}, TotalSuccessfulRequests: ok, TotalErrorRequests: failed,
			LoadMetricStats: []*endpointv3.EndpointLoadMetricStats{{MetricName: bucket, NumRequestsFinishedWithMetric: ok + failed}},
		}},
	}
}

func TestAggregate(t *testing.T) {
	began := time.Unix(100, 0)
	a := NewAggregator(began, prometheus.NewRegistry())
	from := &corev3.Locality{Region: "eu", Zone: "a"}
	a.Add(from, stats("b", 3, 1, "latency_bucket_2"))
	a.Add(from, stats("b", 2, 0, "latency_bucket_3"))
	a.Add(from, stats("a", 1, 0, "latency_bucket_999999"))
	a.Add(from, stats("a", 1, 0, "latency_bucket_-1"))
	a.Add(from, &endpointv3.ClusterStats{ClusterName: "inbound|8080||"})
	a.Add(from, nil)
	rows, window := a.Take(began.Add(2 * time.Second))
	if len(rows) != 2 || window != 2*time.Second {
		t.Fatalf("%v %v", rows, window)
	}
	far := rows[1]
	if rows[0].GetDestinationZone() != "a" || far.GetRequests() != 6 || far.GetErrors() != 1 || far.GetSourceZone() != "a" || far.GetService().GetName() != "catalog" {
		t.Errorf("%v", rows)
	}
	if len(far.GetLatencyCounts()) != latency.Buckets || far.GetLatencyCounts()[2] != 4 || far.GetLatencyCounts()[3] != 2 {
		t.Errorf("latency %v", far.GetLatencyCounts())
	}
	if rows, _ := a.Take(began.Add(3 * time.Second)); len(rows) != 0 {
		t.Errorf("counted twice: %v", rows)
	}
}

func TestRowsAreBounded(t *testing.T) {
	a := NewAggregator(time.Unix(0, 0), prometheus.NewRegistry())
	for i := range maxRows + 100 {
		a.Add(nil, stats(fmt.Sprint("z", i), 1, 0, ""))
	}
	if rows, _ := a.Take(time.Unix(1, 0)); len(rows) != maxRows {
		t.Errorf("%d rows", len(rows))
	}
}

func FuzzServiceOf(f *testing.F) {
	f.Add("outbound|80|v1|catalog.shop.svc.cluster.local")
	f.Add("outbound|||")
	f.Fuzz(func(t *testing.T, cluster string) {
		if service, ok := serviceOf(cluster); ok && service.IsZero() {
			t.Errorf("%q is no service", cluster)
		}
	})
}
