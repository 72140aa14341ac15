package pmap

import "iter"

// Change is what became of one key. A zero Old with HadOld false means the key is new; New likewise.
type Change[V comparable] struct {
	Old, New       V
	HadOld, HasNew bool
}

// Diff yields, in order, every key whose value differs between old and m. It costs O(d log n) for d
// differences between two versions of one map, and stays exact, if slower, between unrelated maps.
func (m Map[V]) Diff(old Map[V]) iter.Seq2[string, Change[V]] {
	return func(yield func(string, Change[V]) bool) { diff(old.root, m.root, yield) }
}

// diff descends both trees along the root of higher priority. Versions of one map have the same shape outside
// what changed, so the split below is the identity nearly everywhere and the recursion ends at shared subtrees.
func diff[V comparable](old, now *node[V], yield func(string, Change[V]) bool) bool {
	switch {
	case old == now:
		return true
	case old == nil:
		return now.prefix("", func(k string, v V) bool { return yield(k, Change[V]{New: v, HasNew: true}) })
	case now == nil:
		return old.prefix("", func(k string, v V) bool { return yield(k, Change[V]{Old: v, HadOld: true}) })
	case old.key == now.key:
		return diff(old.left, now.left, yield) && diffAt(old, now, yield) && diff(old.right, now.right, yield)
	case above(old, now.priority, now.key):
		less, at, greater := now.split(old.key)
		return diff(old.left, less, yield) && diffAt(old, at, yield) && diff(old.right, greater, yield)
	}
	less, at, greater := old.split(now.key)
	return diff(less, now.left, yield) && diffAt(at, now, yield) && diff(greater, now.right, yield)
}

func diffAt[V comparable](old, now *node[V], yield func(string, Change[V]) bool) bool {
	switch {
	case old == nil:
		return yield(now.key, Change[V]{New: now.value, HasNew: true})
	case now == nil:
		return yield(old.key, Change[V]{Old: old.value, HadOld: true})
	case old.value == now.value:
		return true
	}
	return yield(old.key, Change[V]{Old: old.value, New: now.value, HadOld: true, HasNew: true})
}
