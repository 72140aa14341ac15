package balance

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// Vectors of envoy docs priority.rst with F = 140. Where the docs contradict the formula (5 and 65: they print
// 7/93) the code decides: the remainder of rounding goes to the first level that has healthy hosts.
func TestPriorityLoad(t *testing.T) {
	for _, test := range []struct {
		percent, want []uint32
	}{
		{[]uint32{100, 100}, []uint32{100, 0}},
		{[]uint32{72, 100}, []uint32{100, 0}},
		{[]uint32{71, 100}, []uint32{99, 1}},
		{[]uint32{50, 100}, []uint32{70, 30}},
		{[]uint32{50, 60}, []uint32{70, 30}},
		{[]uint32{25, 100}, []uint32{35, 65}},
		{[]uint32{0, 100}, []uint32{0, 100}},
		{[]uint32{25, 25}, []uint32{50, 50}},
		{[]uint32{25, 25, 20}, []uint32{37, 35, 28}},
		{[]uint32{5, 65}, []uint32{8, 92}},
		{[]uint32{0, 0}, []uint32{0, 0}},
	} {
		t.Run(fmt.Sprint(test.percent), func(t *testing.T) {
			var levels []tally
			for _, p := range test.percent {
				levels = append(levels, tally{healthy: uint64(p), total: 100})
			}
			if got := newLoads(levels, 140, 0).healthy; !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Vectors of envoy docs degraded.rst: degraded hosts get what the healthy ones of all levels leave.
func TestDegradedLoad(t *testing.T) {
	got := newLoads([]tally{{healthy: 25, degraded: 75, total: 100}, {healthy: 25, degraded: 0, total: 100}}, 140, 50)
	if want := []uint32{35, 35}; !slices.Equal(got.healthy, want) {
		t.Errorf("healthy: got %v, want %v", got.healthy, want)
	}
	if want := []uint32{30, 0}; !slices.Equal(got.degraded, want) {
		t.Errorf("degraded: got %v, want %v", got.degraded, want)
	}
}

func TestPanic(t *testing.T) {
	for _, test := range []struct {
		name         string
		levels       []tally
		panicPercent uint32
		wantLoad     []uint32
		wantPanic    []bool
	}{
		{"not while the levels together reach 100", []tally{{healthy: 10, total: 100}, {healthy: 80, total: 100}}, 50,
			[]uint32{14, 86}, []bool{false, false}},
		{"one level", []tally{{healthy: 10, total: 100}, {healthy: 55, total: 100}}, 50,
			[]uint32{16, 84}, []bool{true, false}},
		{"all levels: by number of hosts", []tally{{healthy: 1, total: 10}, {healthy: 5, total: 20}}, 50,
			[]uint32{34, 66}, []bool{true, true}},
		{"nothing healthy", []tally{{total: 10}, {total: 30}}, 50, []uint32{25, 75}, []bool{true, true}},
		{"an empty level takes no load", []tally{{}, {total: 30}}, 50, []uint32{0, 100}, []bool{true, true}},
		{"disabled", []tally{{total: 10}, {total: 30}}, 0, []uint32{0, 0}, []bool{false, false}},
		{"no hosts", []tally{{}}, 50, []uint32{0}, []bool{true}},
		{"exactly at the threshold is no panic", []tally{{healthy: 50, total: 100}}, 50, []uint32{100}, []bool{false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := newLoads(test.levels, 140, test.panicPercent)
			if !slices.Equal(got.healthy, test.wantLoad) || !slices.Equal(got.panic, test.wantPanic) {
				t.Errorf("got %v %v, want %v %v", got.healthy, got.panic, test.wantLoad, test.wantPanic)
			}
		})
	}
}

// Vectors of envoy docs locality_weight.rst: X has weight 1, Y, all healthy, weight 2.
func TestLocalityWeights(t *testing.T) {
	for percent, want := range map[int]float64{100: 33, 70: 33, 69: 32, 50: 26, 25: 15, 0: 0} {
		for _, policy := range []Policy{RoundRobin, LeastRequest, Random} {
			x, y := hosts("x", 100), hosts("y", 100)
			for i := range x[percent:] {
				x[percent+i].Health = Unhealthy
			}
			s := NewSet(Spec{Policy: policy, LocalityWeighted: true, Random: seeded(), Levels: []Level{{Localities: []Locality{
				{Region: "x", Weight: 1, Hosts: x}, {Region: "y", Weight: 2, Hosts: y}, {Region: "none", Hosts: hosts("n", 3)},
			}}}}, nil)
			got := shares(t, s, func(h *Host) string { return h.Region })
			if math.Abs(got["x"]-want) > 1 || got["none"] != 0 {
				t.Errorf("policy %d: x at %d%%: got %v%%, want %v%% (all: %v)", policy, percent, got["x"], want, got)
			}
		}
	}
}

// A locality's degraded hosts carry none of the load of the healthy ones, as in Envoy: of X, half healthy and half
// degraded, 0.7 of the weight is left.
func TestLocalityWeightsOfHealthyHostsIgnoreDegradedOnes(t *testing.T) {
	x, y := hosts("x", 10), hosts("y", 10)
	for i := range x[5:] {
		x[5+i].Health = Degraded
	}
	s := NewSet(Spec{Policy: Random, LocalityWeighted: true, Random: seeded(), Levels: []Level{{Localities: []Locality{
		{Region: "x", Weight: 1, Hosts: x}, {Region: "y", Weight: 1, Hosts: y},
	}}}}, nil)
	if got, want := shares(t, s, func(h *Host) string { return h.Region })["x"], 100*0.7/1.7; math.Abs(got-want) > 1 {
		t.Errorf("x got %.1f%%, want %.1f%%", got, want)
	}
}

// Of three hosts two are 93.3 %, not 93: the shares are the formula's, without another rounding.
func TestEffectiveWeight(t *testing.T) {
	for _, c := range []struct {
		weight      uint32
		used, total uint64
		want        uint64
	}{{1, 3, 3, 1e6}, {1, 5, 7, 1e6}, {3, 2, 3, 2_800_000}, {1, 0, 3, 0}, {0, 3, 3, 0}, {math.MaxUint32, 1, 2, 3006477106500000}} {
		if got := effectiveWeight(c.weight, c.used, c.total, 140); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}
