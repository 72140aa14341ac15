package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// The least that two writes of the log, the leader's and then a follower's, take on this disk: each is a block over zeros, and
// one wait. What [BenchmarkProposeOne] takes longer is the program's.
func BenchmarkSync(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	if err := durable.Write(path, make([]byte, 4<<20)); err != nil {
		b.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_DSYNC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	block := bytes.Repeat([]byte{1}, 512)
	var took []time.Duration
	for at := int64(0); b.Loop(); at++ {
		start := time.Now()
		for side := range int64(2) { // each in its half of the file
			if _, err := file.WriteAt(block, side<<21+at*512%(1<<21)); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}
