package disk

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// One entry of the usual size is on disk. Reports the median.
func BenchmarkStoreOne(b *testing.B) {
	log, err := OpenLog(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
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
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// Sixteen entries of 8 KiB are on disk, and the log is shortened as raft does it.
func BenchmarkStoreBatches(b *testing.B) {
	log, err := OpenLog(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	const batch, size, kept = 16, 8 << 10, 8192
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i)
	}
	b.SetBytes(batch * size)
	next := uint64(1)
	for b.Loop() {
		entries := make([]*raft.Log, batch)
		for i := range entries {
			entries[i] = &raft.Log{Index: next, Term: 1, Data: data}
			next++
		}
		if err := log.StoreLogs(entries); err != nil {
			b.Fatal(err)
		}
		if next%kept == 1 && next > 2*kept {
			if err := log.DeleteRange(next-2*kept, next-kept); err != nil {
				b.Fatal(err)
			}
		}
	}
}
