package replica

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The least that two commits of the log, the leader's and then a follower's, take on this disk: each writes a page and waits
// for it, twice. What [BenchmarkProposeOne] takes longer is the program's.
func BenchmarkSync(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	page := make([]byte, 4096)
	write := func(at int64) {
		if _, err := file.WriteAt(page, at*int64(len(page))); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	for at := range int64(64) {
		write(at)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		for at := range int64(4) {
			write(at * 16)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}
