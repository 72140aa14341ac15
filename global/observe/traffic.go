package observe

import (
	"cmp"
	"slices"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// TrafficFor is how long a load report counts after it was made.
const TrafficFor = 30 * time.Second

type cellKey struct {
	service             mesh.ServiceName
	source, destination string
}

type cell struct {
	rps, errors float64 // per second
	counts      [latency.Buckets]uint64
	age         time.Duration
}

// Traffic adds up the clusters' newest load reports by service and pair of regions. It is ordered.
func Traffic(view map[mesh.ClusterID]Seen) []*pb.TrafficCell {
	cells := make(map[cellKey]*cell)
	for _, seen := range view {
		if seen.Load != nil && seen.LoadAge <= TrafficFor {
			addReport(cells, seen.Load, seen.LoadAge)
		}
	}
	out := make([]*pb.TrafficCell, 0, len(cells))
	for key, c := range cells {
		out = append(out, &pb.TrafficCell{
			Service:      &pb.ServiceName{Namespace: key.service.Namespace, Name: key.service.Name},
			SourceRegion: key.source, DestinationRegion: key.destination,
			RequestsPerSecond: c.rps, ErrorRatio: ratio(c.errors, c.rps), AgeMs: c.age.Milliseconds(),
			P50Ms: milliseconds(latency.Quantile(c.counts[:], 0.5)), P99Ms: milliseconds(latency.Quantile(c.counts[:], 0.99)),
		})
	}
	slices.SortFunc(out, func(a, b *pb.TrafficCell) int {
		return cmp.Or(
			cmp.Compare(a.GetService().GetNamespace(), b.GetService().GetNamespace()), cmp.Compare(a.GetService().GetName(), b.GetService().GetName()),
			cmp.Compare(a.GetSourceRegion(), b.GetSourceRegion()), cmp.Compare(a.GetDestinationRegion(), b.GetDestinationRegion()),
		)
	})
	return out
}

func addReport(cells map[cellKey]*cell, report *pb.LoadReport, age time.Duration) {
	window := float64(max(report.GetWindowMs(), 1)) / 1000
	for _, row := range report.GetRows() {
		key := cellKey{
			mesh.ServiceName{Namespace: row.GetService().GetNamespace(), Name: row.GetService().GetName()},
			row.GetSourceRegion(), row.GetDestinationRegion(),
		}
		c := cells[key]
		if c == nil {
			c = new(cell)
			cells[key] = c
		}
		c.rps += float64(row.GetRequests()) / window
		c.errors += float64(row.GetErrors()) / window
		c.age = max(c.age, age)
		for i, n := range row.GetLatencyCounts()[:min(len(row.GetLatencyCounts()), latency.Buckets)] {
			c.counts[i] += n
		}
	}
}

func ratio(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return min(part/whole, 1)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
