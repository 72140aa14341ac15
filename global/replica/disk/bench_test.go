package disk

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// One entry of the usual size is on disk. Reports the median.
func BenchmarkStoreOne(b *testing.B) {
	log := open(b, b.TempDir())
	defer log.Close()
	var took []time.Duration
	for index := uint64(1); b.Loop(); index++ {
		start := time.Now()
		if err := log.StoreLog(&raft.Log{Index: index, Term: 1, Data: make([]byte, 200)}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}
