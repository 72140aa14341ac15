package pmap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Any sequence of changes leaves what a plain map would hold, in order, and every earlier version as it was.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[abc/]{0,4}`)
		versions := []Map[int]{{}}
		models := []map[string]int{{}}
		for range rapid.IntRange(0, 60).Draw(t, "changes") {
			m, model := versions[len(versions)-1], maps.Clone(models[len(models)-1])
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 2).Draw(t, "change") {
			case 0:
				v := rapid.IntRange(0, 3).Draw(t, "value")
				m, model[k] = m.Set(k, v), v
			case 1:
				m = m.Delete(k)
				delete(model, k)
			case 2:
				m = setAll(t, m, model, rapid.SliceOfN(key, 0, 20).Draw(t, "keys"))
			}
			versions, models = append(versions, m), append(models, model)
		}
		for i, m := range versions {
			equalsModel(t, m, models[i])
		}
		from := rapid.IntRange(0, len(versions)-1).Draw(t, "from")
		to := rapid.IntRange(0, len(versions)-1).Draw(t, "to")
		diffEqualsModel(t, versions[from], versions[to], models[from], models[to])
		prefix := key.Draw(t, "prefix")
		var want []string
		for _, k := range slices.Sorted(maps.Keys(models[to])) {
			if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
				want = append(want, k)
			}
		}
		if got := keys(versions[to].Prefix(prefix)); !slices.Equal(got, want) {
			t.Fatalf("prefix %q: got %q, want %q", prefix, got, want)
		}
	})
}

// setAll sets keys, some twice, in the map and in the model.
func setAll(t *rapid.T, m Map[int], model map[string]int, keys []string) Map[int] {
	values := make([]int, len(keys))
	for i, k := range keys {
		values[i] = rapid.IntRange(0, 3).Draw(t, "value")
		model[k] = values[i]
	}
	return m.SetAll(func(yield func(string, int) bool) {
		for i, k := range keys {
			if !yield(k, values[i]) {
				return
			}
		}
	})
}

func keys[V any](seq func(func(string, V) bool)) (out []string) {
	for k := range seq {
		out = append(out, k)
	}
	return out
}

func equalsModel(t *rapid.T, m Map[int], model map[string]int) {
	if m.Len() != len(model) {
		t.Fatalf("len %d, want %d", m.Len(), len(model))
	}
	if got, want := keys(m.All()), slices.Sorted(maps.Keys(model)); !slices.Equal(got, want) {
		t.Fatalf("keys %q, want %q", got, want)
	}
	for k, want := range model {
		if got, ok := m.Get(k); !ok || got != want {
			t.Fatalf("%q: got %d %v, want %d", k, got, ok, want)
		}
	}
}

func diffEqualsModel(t *rapid.T, old, now Map[int], oldModel, nowModel map[string]int) {
	want := map[string]Change[int]{}
	for k, v := range oldModel {
		if n, ok := nowModel[k]; !ok || n != v {
			want[k] = Change[int]{Old: v, HadOld: true, New: n, HasNew: ok}
		}
	}
	for k, v := range nowModel {
		if _, ok := oldModel[k]; !ok {
			want[k] = Change[int]{New: v, HasNew: true}
		}
	}
	got := maps.Collect(now.Diff(old))
	if !maps.Equal(got, want) {
		t.Fatalf("diff %v, want %v", got, want)
	}
	if order := keys(now.Diff(old)); !slices.IsSorted(order) {
		t.Fatalf("diff out of order: %q", order)
	}
}

// Equal contents have equal shape, however they came about; Diff's cost rests on it.
func TestShapeDependsOnContentsOnly(t *testing.T) {
	var up, down Map[int]
	for i := range 500 {
		up = up.Set(fmt.Sprint(i), i)
		down = down.Set(fmt.Sprint(499-i), 499-i)
	}
	for i := range 500 {
		up = up.Set(fmt.Sprint("x", i), i)
	}
	for i := range 500 {
		up = up.Delete(fmt.Sprint("x", i))
	}
	all := Map[int]{}.SetAll(maps.All(maps.Collect(up.All())))
	var same func(a, b *node[int]) bool
	same = func(a, b *node[int]) bool {
		if a == nil || b == nil {
			return a == b
		}
		return a.key == b.key && same(a.left, b.left) && same(a.right, b.right)
	}
	if !same(up.root, down.root) || !same(up.root, all.root) {
		t.Fatal("shapes differ")
	}
}

// Setting what is there already is no change at all.
func TestSetOfTheSameIsTheSameMap(t *testing.T) {
	m := filled(100)
	if again := m.SetAll(m.All()); again != m {
		t.Error("SetAll made another version")
	}
	for k, v := range m.All() {
		if m.Set(k, v) != m {
			t.Fatalf("Set of %q made another version", k)
		}
	}
}

func filled(n int) Map[*int] {
	var m Map[*int]
	for i := range n {
		m = m.Set(fmt.Sprintf("endpoints/ns/service-%06d/cluster/slice", i), new(int))
	}
	return m
}

// One-row change at 10 000 keys.
func BenchmarkSet(b *testing.B) {
	m := filled(10_000)
	b.ReportAllocs()
	for b.Loop() {
		m = m.Set("endpoints/ns/service-005000/cluster/slice", new(int))
	}
}

// 2 048 rows changed at once at 10 000 keys, in whatever order the caller has them.
func BenchmarkSetAll(b *testing.B) {
	m := filled(10_000)
	keys := make([]string, 2048)
	for i, at := range rand.New(rand.NewPCG(1, 2)).Perm(len(keys)) {
		keys[at] = fmt.Sprintf("endpoints/ns/service-%06d/cluster/slice", i*4)
	}
	b.ReportAllocs()
	for b.Loop() {
		m = m.SetAll(func(yield func(string, *int) bool) {
			for _, key := range keys {
				if !yield(key, new(int)) {
					return
				}
			}
		})
	}
}

// One difference among 100 000 keys.
func BenchmarkDiff(b *testing.B) {
	old := filled(100_000)
	now := old.Set("endpoints/ns/service-050000/cluster/slice", new(int))
	b.ReportAllocs()
	for b.Loop() {
		for range now.Diff(old) {
		}
	}
}

func BenchmarkGet(b *testing.B) {
	m := filled(100_000)
	for b.Loop() {
		m.Get("endpoints/ns/service-050000/cluster/slice")
	}
}
