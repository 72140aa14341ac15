package latency

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketsCountsTheBounds(t *testing.T) {
	if Buckets != len(bounds)+1 {
		t.Fatalf("Buckets is %d, there are %d bounds", Buckets, len(bounds))
	}
}

func TestIndexIsTheSmallestBoundNotBelow(t *testing.T) {
	for i, bound := range Bounds() {
		if Index(bound) != i || Index(bound+1) != i+1 {
			t.Errorf("bound %v: index %d, after it %d, want %d", bound, Index(bound), Index(bound+1), i)
		}
	}
	if Index(-1) != 0 || Index(math.MaxInt64) != Buckets-1 {
		t.Error("the ends are not in the outer buckets")
	}
}

func TestQuantile(t *testing.T) {
	if got := Quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	if got := Quantile(make([]uint64, 1000), 0.99); got != 0 {
		t.Errorf("of zeros: %v", got)
	}
	counts := make([]uint64, Buckets)
	counts[Buckets-1] = 1
	if got := Quantile(counts, 0.5); got != 60*time.Second {
		t.Errorf("of the open bucket: %v", got)
	}
}

func TestQuantileIsWithinTheResolution(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(int64(first)*6/5+1, int64(last)), 1, 200).Draw(t, "ns")
		counts := make([]uint64, Buckets)
		for _, v := range values {
			counts[Index(time.Duration(v))]++
		}
		slices.Sort(values)
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		exact := float64(values[max(0, int(math.Ceil(q*float64(len(values))))-1)])
		got := float64(Quantile(counts, q))
		if got < exact/1.21 || got > exact*1.21 {
			t.Fatalf("quantile %.2f is %.0f, exactly %.0f", q, got, exact)
		}
	})
}

func BenchmarkIndex(b *testing.B) {
	for b.Loop() {
		Index(7 * time.Millisecond)
	}
}
