package divergence

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

func gateway(name string, port uint16) *mesh.Gateway {
	return &mesh.Gateway{Cluster: "a", Name: name, Network: "n1", Address: netip.MustParseAddr("10.0.0.1"), Port: port, Health: mesh.Healthy}
}

// Whatever way a state came about, and however many steps were skipped, its sum is that of the same state from scratch;
// and one object more, less or other shows.
func TestSumIsOfTheStateAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, sum := new(mesh.Store), new(Sum)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			name := fmt.Sprint("g", rapid.IntRange(0, 5).Draw(t, "name"))
			if rapid.Bool().Draw(t, "delete") {
				store.Update(mesh.Delta{Deletes: []mesh.Key{mesh.GatewayKey("a", name)}})
			} else {
				store.Update(mesh.Delta{Upserts: []mesh.Object{gateway(name, rapid.Uint16Range(1, 3).Draw(t, "port"))}})
			}
			if now, _ := store.Latest(); rapid.Bool().Draw(t, "look") {
				sum.Advance(now)
			}
		}
		now, _ := store.Latest()
		var all []mesh.Object
		for _, o := range now.All() {
			all = append(all, o)
		}
		got := sum.Advance(now)
		if scratch := new(Sum).Advance(new(mesh.Store).Restore(1, all)); got != scratch {
			t.Fatalf("%x step by step, %x from scratch", got, scratch)
		}
		if more := sum.Advance(store.Update(mesh.Delta{Upserts: []mesh.Object{gateway("other", 9)}})); more == got {
			t.Fatal("one object more is not seen")
		}
	})
}

// F9: who differs from most of all is wrong; two that differ accuse each other, and nobody is judged.
func TestVerdict(t *testing.T) {
	three := []string{"a", "b", "c"}
	for what, c := range map[string]struct {
		members []string
		own     []Point
		heard   map[string]Point
		differ  []string
		wrong   bool
	}{
		"all agree":                       {three, []Point{{1000, 7}}, map[string]Point{"b": {1000, 7}, "c": {1000, 7}}, nil, false},
		"one differs":                     {three, []Point{{1000, 7}}, map[string]Point{"b": {1000, 7}, "c": {1000, 8}}, []string{"c"}, false},
		"this one differs":                {three, []Point{{1000, 7}}, map[string]Point{"b": {1000, 8}, "c": {1000, 8}}, []string{"b", "c"}, true},
		"all differ":                      {three, []Point{{1000, 7}}, map[string]Point{"b": {1000, 8}, "c": {1000, 9}}, []string{"b", "c"}, false},
		"at different indexes":            {three, []Point{{1000, 7}, {2000, 7}}, map[string]Point{"b": {1000, 8}, "c": {2000, 8}}, []string{"b", "c"}, false},
		"nothing to compare with":         {three, []Point{{1000, 7}}, map[string]Point{"b": {2000, 8}, "c": {0, 8}}, nil, false},
		"one of two":                      {[]string{"a", "b"}, []Point{{1000, 7}}, map[string]Point{"b": {1000, 8}}, []string{"b"}, false},
		"two of five are no majority":     {[]string{"a", "b", "c", "d", "e"}, []Point{{1000, 7}}, map[string]Point{"b": {1000, 8}, "c": {1000, 8}}, []string{"b", "c"}, false},
		"who is no member does not count": {three[:2], []Point{{1000, 7}}, map[string]Point{"b": {1000, 7}, "c": {1000, 8}}, nil, false},
	} {
		var j Jury
		for _, p := range c.own {
			j.Own(p)
		}
		for id, p := range c.heard {
			j.Heard(id, p)
		}
		if v := j.Verdict(c.members); !slices.Equal(v.Differ, c.differ) || v.Wrong != c.wrong {
			t.Errorf("%s: %+v", what, v)
		}
	}
}

// A replica that differed and came back empty is not held to what it said before.
func TestNewBeginning(t *testing.T) {
	var j Jury
	j.Own(Point{1000, 7})
	j.Heard("b", Point{1000, 8})
	j.Heard("b", Point{})
	if v := j.Verdict([]string{"a", "b"}); len(v.Differ) > 0 {
		t.Errorf("%+v", v)
	}
}

func TestOwnSumsAreBounded(t *testing.T) {
	var j Jury
	for i := range uint64(10 * kept) {
		j.Own(Point{i + 1, 0})
	}
	if len(j.own) != kept || j.Newest().Index != 10*kept {
		t.Errorf("%d sums, the newest at %d", len(j.own), j.Newest().Index)
	}
}
