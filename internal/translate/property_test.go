package translate_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
)

// Every endpoint is placed, counted behind gateways, or dropped: once. Everything has a reason.
func TestEveryEndpointOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := new(mesh.Store)
		snapshot := store.Update(translatetest.Start(t))
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			snapshot = store.Update(translatetest.Delta(t))
		}
		v := translatetest.View(t, translatetest.AnyCluster(t))
		for name := range snapshot.ServiceNames() {
			a := translate.Assign(snapshot, v, translate.Request{Service: name, Port: 80, Subset: rapid.SampledFrom([]string{"", "v1"}).Draw(t, "subset")})
			endpoints := 0
			for slice := range snapshot.Endpoints(name) {
				endpoints += len(slice.Endpoints)
			}
			if got := accounted(t, a); got != endpoints {
				t.Fatalf("%s: %d accounted for of %d: %+v", name, got, endpoints, a)
			}
			checkLevels(t, a)
		}
	})
}

func accounted(t *rapid.T, a translate.Assignment) int {
	type network struct {
		mesh.ClusterID
		mesh.Network
	}
	behind := map[network]uint32{}
	n := 0
	for _, level := range a.Levels {
		for _, p := range level {
			if p.Reason == "" || p.Weight == 0 || p.LocalityWeight == 0 || p.StandsFor == 0 {
				t.Fatalf("incomplete: %+v", p)
			}
			if p.Gateway {
				behind[network{p.Cluster, p.Network}] = p.StandsFor
			} else {
				n++
			}
		}
	}
	for _, d := range a.Dropped {
		if d.Reason == "" || d.Count == 0 {
			t.Fatalf("incomplete: %+v", d)
		}
		n += int(d.Count)
	}
	for _, count := range behind {
		n += int(count)
	}
	return n
}

// Levels have no gaps, and no address is there twice.
func checkLevels(t *rapid.T, a translate.Assignment) {
	seen := map[string]bool{}
	for i, level := range a.Levels {
		if len(level) == 0 {
			t.Fatalf("level %d is empty", i)
		}
		for _, p := range level {
			if seen[p.Address.String()] {
				t.Fatalf("%s twice", p.Address)
			}
			seen[p.Address.String()] = true
		}
	}
	if shares := a.Shares(); len(a.Levels) > 0 {
		var sum float64
		for _, level := range shares.Levels {
			sum += level
		}
		if sum < 0.999 || sum > 1.001 || slices.Min(shares.Levels) < 0 {
			t.Fatalf("shares %v", shares.Levels)
		}
	}
}
