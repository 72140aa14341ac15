package latency

import (
	"slices"
	"time"
)

const (
	first  = 100 * time.Microsecond
	last   = 60 * time.Second
	growth = 1.2
)

// bounds are inclusive upper bounds of all buckets but the last, which is open. Never written.
var bounds = makeBounds()

func makeBounds() []time.Duration {
	var out []time.Duration
	for bound := float64(first); time.Duration(bound) < last; bound *= growth {
		out = append(out, time.Duration(bound).Truncate(time.Microsecond))
	}
	return append(out, last)
}

// Buckets is the number of buckets: the length of every slice of counts.
const Buckets = 75

// Bounds returns a copy of the inclusive upper bounds, ascending; the last bucket has none.
func Bounds() []time.Duration { return slices.Clone(bounds) }

// Index is the bucket of d, in 0..Buckets-1.
func Index(d time.Duration) int {
	low, high := 0, len(bounds)
	for low < high {
		middle := (low + high) / 2
		if bounds[middle] < d {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// Quantile estimates the q-quantile, q in 0..1, linearly inside a bucket; 0 if there are no counts. Counts beyond
// Buckets are ignored, so that a foreign histogram cannot hurt.
func Quantile(counts []uint64, q float64) time.Duration {
	counts = counts[:min(len(counts), Buckets)]
	var total float64
	for _, n := range counts {
		total += float64(n)
	}
	rank := q * total
	for i, n := range counts {
		if n > 0 && float64(n) >= rank {
			return within(i, rank/float64(n))
		}
		rank -= float64(n)
	}
	return 0
}

// within is the point at fraction of bucket i.
func within(i int, fraction float64) time.Duration {
	if i >= len(bounds) {
		return last
	}
	var lower time.Duration
	if i > 0 {
		lower = bounds[i-1]
	}
	return lower + time.Duration(max(fraction, 0)*float64(bounds[i]-lower))
}
