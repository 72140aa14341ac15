package translate

import (
	"math"
	"slices"
	"testing"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Envoy, priority.rst and load_balancer_impl.cc: hosts of 100 in each level that are healthy, and the load.
// Panic is per level, considered only when all levels together cannot take the load.
// Envoy, locality_weight.rst: X has weight 1, Y weight 2; X healthy in percent and its share.
func TestSplit(t *testing.T) {
	for _, test := range []struct {
		total uint64
		n     int
		want  []uint32
	}{
		{7, 2, []uint32{4, 3}},
		{6, 3, []uint32{2, 2, 2}},
		{1, 2, []uint32{1, 1}}, // 0 is not a weight
		{0, 1, []uint32{1}},
		{1 << 40, 1, []uint32{math.MaxUint32}},
	} {
		if got := split(test.total, test.n); !slices.Equal(got, test.want) {
			t.Errorf("%d over %d: got %v, want %v", test.total, test.n, got, test.want)
		}
	}
}

func TestBound(t *testing.T) {
	level := []Placed{{Weight: math.MaxUint32}, {Weight: math.MaxUint32}, {Weight: 1}}
	bound(level)
	var sum uint64
	for _, p := range level {
		sum += uint64(p.Weight)
	}
	if sum > math.MaxUint32 || level[0].Weight != level[1].Weight || level[2].Weight != 1 {
		t.Errorf("%d %d %d", level[0].Weight, level[1].Weight, level[2].Weight)
	}
}

func TestLocalityMatches(t *testing.T) {
	for _, test := range []struct {
		pattern string
		want    bool
	}{
		{"*", true}, {"eu", true}, {"eu/*", true}, {"eu/1", true}, {"eu/1/*", true}, {"eu/1/r1", true},
		{"us", false}, {"eu/2", false}, {"eu/2/*", false}, {"eu/1/r2", false}, {"", false},
	} {
		if got := localityMatches(test.pattern, mesh.Locality{Region: "eu", Zone: "1", Subzone: "r1"}); got != test.want {
			t.Errorf("%q: %v", test.pattern, got)
		}
	}
}

// Istio's LbPriority, with and without a failover rule to "us".
func TestLocalityRank(t *testing.T) {
	from := mesh.Locality{Region: "eu", Zone: "1", Subzone: "r1"}
	for _, test := range []struct {
		to            string
		plain, toward int
	}{
		{"eu/1/r1", 0, 0}, {"eu/1/r2", 1, 1}, {"eu/1", 1, 1}, {"eu/2/r1", 2, 2}, {"us/1", 3, 3}, {"ap/1", 3, 4},
	} {
		l, _ := mesh.ParseLocality(test.to)
		a := &assigner{v: View{Locality: from}}
		plain := a.localityRank(l)
		a.balance.Failover = []mesh.RegionFailover{{From: "ap", To: "eu"}, {From: "eu", To: "us"}}
		if toward := a.localityRank(l); plain != test.plain || toward != test.toward {
			t.Errorf("%s: got %d, %d, want %d, %d", test.to, plain, toward, test.plain, test.toward)
		}
	}
}

// failoverPriority (Istio, destination_rule.proto): network first, then region, then a label.
func TestLabelRank(t *testing.T) {
	a := &assigner{network: "n1", v: View{Locality: mesh.Locality{Region: "eu"}}}
	a.balance.FailoverPriority = []string{labelNetwork, labelRegion, "version=v1"}
	for _, test := range []struct {
		network mesh.Network
		region  string
		version string
		want    int
	}{
		{"n1", "eu", "v1", 0}, {"n1", "eu", "v2", 1}, {"n1", "us", "v1", 2},
		{"n2", "eu", "v1", 3}, {"n2", "eu", "v2", 4}, {"n2", "us", "v1", 5},
	} {
		p := &Placed{Network: test.network, Locality: mesh.Locality{Region: test.region}, labels: map[string]string{"version": test.version}}
		if got := a.labelRank(p); got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
	}
}

// In panic neither health nor the weights of localities count.
