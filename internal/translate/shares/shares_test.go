package shares

import (
	"math"
	"slices"
	"testing"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

func TestPriorityLoads(t *testing.T) {
	for _, test := range []struct {
		healthy, want []uint32
	}{
		{[]uint32{100, 100}, []uint32{100, 0}},
		{[]uint32{72, 72}, []uint32{100, 0}},
		{[]uint32{71, 71}, []uint32{99, 1}},
		{[]uint32{50, 60}, []uint32{70, 30}},
		{[]uint32{25, 100}, []uint32{35, 65}},
		{[]uint32{0, 100}, []uint32{0, 100}},
		{[]uint32{25, 25}, []uint32{50, 50}},
		{[]uint32{25, 25, 20}, []uint32{37, 35, 28}}, // 98 in all: what rounding leaves goes to the first
		{[]uint32{5, 65}, []uint32{8, 92}},
		{[]uint32{0, 0}, []uint32{100, 0}},
		{nil, nil},
	} {
		total := make([]uint32, len(test.healthy))
		for i := range total {
			total[i] = 100
		}
		if got, _ := priorityLoads(total, test.healthy, 0); !slices.Equal(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.healthy, got, test.want)
		}
	}
}

func TestPanic(t *testing.T) {
	for _, test := range []struct {
		name           string
		total, healthy []uint32
		loads          []uint32
		panics         []bool
	}{
		{"enough elsewhere", []uint32{10, 10}, []uint32{1, 10}, []uint32{14, 86}, []bool{false, false}},
		{"one level", []uint32{10, 10}, []uint32{5, 1}, []uint32{84, 16}, []bool{false, true}},
		{"all: by hosts", []uint32{10, 30}, []uint32{1, 1}, []uint32{25, 75}, []bool{true, true}},
		{"nobody", []uint32{0}, []uint32{0}, []uint32{100}, []bool{true}},
	} {
		loads, panics := priorityLoads(test.total, test.healthy, 50)
		if !slices.Equal(loads, test.loads) || !slices.Equal(panics, test.panics) {
			t.Errorf("%s: got %v %v, want %v %v", test.name, loads, panics, test.loads, test.panics)
		}
	}
}

func TestLocalityShares(t *testing.T) {
	for healthy, want := range map[int]float64{100: 33, 72: 33, 70: 33, 69: 32, 50: 26, 25: 15, 0: 0} {
		var level []translate.Placed
		for i := range 200 {
			p := translate.Placed{Locality: mesh.Locality{Region: "X"}, LocalityWeight: 1, Weight: 1, Health: mesh.Healthy}
			if i >= 100 {
				p.Locality.Region, p.LocalityWeight = "Y", 2
			} else if i >= healthy {
				p.Health = mesh.Unhealthy
			}
			level = append(level, p)
		}
		var x, sum float64
		for i, share := range Of(translate.Assignment{Levels: [][]translate.Placed{level}}).Endpoints[0] {
			if sum += share; i < 100 {
				x += share
			}
		}
		if math.Abs(100*x-want) > 1 || math.Abs(sum-1) > 1e-9 {
			t.Errorf("%d%%: X gets %.2f%% of %.3f, want %.0f", healthy, 100*x, sum, want)
		}
	}
}

func TestPanicDisregardsLocalities(t *testing.T) {
	level := []translate.Placed{
		{Locality: mesh.Locality{Region: "X"}, LocalityWeight: 1, Weight: 1, Health: mesh.Unhealthy},
		{Locality: mesh.Locality{Region: "X"}, LocalityWeight: 1, Weight: 1, Health: mesh.Unhealthy},
		{Locality: mesh.Locality{Region: "Y"}, LocalityWeight: 9, Weight: 2, Health: mesh.Unhealthy},
	}
	if got := Of(translate.Assignment{Levels: [][]translate.Placed{level}, PanicPercent: 50}).Endpoints[0]; !slices.Equal(got, []float64{.25, .25, .5}) {
		t.Error(got)
	}
}
