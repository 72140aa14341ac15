package pmap

import (
	"cmp"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
)

// seed is drawn once a process: an attacker who picks keys cannot pick their priorities.
var seed = maphash.MakeSeed()

// Map is an immutable ordered map from string to V. The zero Map is empty and ready to use.
type Map[V comparable] struct{ root *node[V] }

type node[V comparable] struct {
	key         string
	priority    uint64
	value       V
	size        int
	left, right *node[V]
}

// Len returns the number of keys, in constant time.
func (m Map[V]) Len() int { return m.root.len() }

// Get returns the value at key.
func (m Map[V]) Get(key string) (v V, ok bool) {
	n := m.root
	for n != nil {
		switch c := strings.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n.value, true
		}
	}
	return v, false
}

// Set returns the map with key at v. Setting what is already there returns the same map.
func (m Map[V]) Set(key string, v V) Map[V] {
	return Map[V]{m.root.set([]item[V]{{key, maphash.String(seed, key), v, 0}})}
}

// SetAll is Set for every entry; of entries with the same key the last counts. For m entries it costs
// O(m log(n/m)) beside sorting them, as paths that several entries share are copied once.
func (m Map[V]) SetAll(entries iter.Seq2[string, V]) Map[V] {
	var items []item[V]
	for key, v := range entries {
		items = append(items, item[V]{key, maphash.String(seed, key), v, len(items)})
	}
	// A stable sort would move each item many times.
	slices.SortFunc(items, func(a, b item[V]) int { return cmp.Or(strings.Compare(a.key, b.key), a.position-b.position) })
	distinct := items[:0]
	for i, it := range items {
		if i+1 == len(items) || items[i+1].key != it.key {
			distinct = append(distinct, it)
		}
	}
	return Map[V]{m.root.set(distinct)}
}

// Delete returns the map without key. Deleting what is not there returns the same map.
func (m Map[V]) Delete(key string) Map[V] {
	if _, ok := m.Get(key); !ok {
		return m
	}
	return Map[V]{m.root.delete(key)}
}

// All yields every key in order.
func (m Map[V]) All() iter.Seq2[string, V] { return m.Prefix("") }

// Prefix yields, in order, the keys that begin with prefix.
func (m Map[V]) Prefix(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { m.root.prefix(prefix, yield) }
}

// From yields, in order, the keys not less than first.
func (m Map[V]) From(first string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { m.root.from(first, yield) }
}

func (n *node[V]) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

func (n *node[V]) with(left, right *node[V]) *node[V] {
	return &node[V]{n.key, n.priority, n.value, 1 + left.len() + right.len(), left, right}
}

// above orders by priority, then by key, so that the shape depends on the keys alone.
func above[V comparable](a *node[V], priority uint64, key string) bool {
	return a.priority > priority || a.priority == priority && a.key < key
}

// item is an entry that is being set.
type item[V comparable] struct {
	key      string
	priority uint64
	value    V
	position int // among those that are set at once
}

// set puts in the items, which are sorted and distinct.
func (n *node[V]) set(items []item[V]) *node[V] {
	if len(items) == 0 {
		return n
	}
	top := highest(items)
	if it := items[top]; n == nil || !above(n, it.priority, it.key) && n.key != it.key {
		less, _, greater := n.split(it.key)
		return (&node[V]{key: it.key, priority: it.priority, value: it.value}).with(less.set(items[:top]), greater.set(items[top+1:]))
	}
	at, found := slices.BinarySearchFunc(items, n.key, func(it item[V], key string) int { return strings.Compare(it.key, key) })
	if !found {
		return n.keep(n.left.set(items[:at]), n.right.set(items[at:]))
	}
	now := n.keep(n.left.set(items[:at]), n.right.set(items[at+1:]))
	if items[at].value == n.value {
		return now
	}
	changed := *now
	changed.value = items[at].value
	return &changed
}

// highest is the index of the item that belongs above the others.
func highest[V comparable](items []item[V]) (top int) {
	for i := range items {
		if p, q := items[i].priority, items[top].priority; p > q || p == q && items[i].key < items[top].key {
			top = i
		}
	}
	return top
}

func (n *node[V]) delete(key string) *node[V] {
	switch c := strings.Compare(key, n.key); {
	case c < 0:
		return n.with(n.left.delete(key), n.right)
	case c > 0:
		return n.with(n.left, n.right.delete(key))
	}
	return join(n.left, n.right)
}

// split returns what is less than key, the node at key if there is one, and what is greater.
func (n *node[V]) split(key string) (less, at, greater *node[V]) {
	if n == nil {
		return nil, nil, nil
	}
	switch c := strings.Compare(key, n.key); {
	case c < 0:
		less, at, right := n.left.split(key)
		return less, at, n.keep(right, n.right)
	case c > 0:
		left, at, greater := n.right.split(key)
		return n.keep(n.left, left), at, greater
	}
	return n.left, n, n.right
}

// keep is with, but returns n itself if the children are the ones it has, so that what is shared stays shared.
func (n *node[V]) keep(left, right *node[V]) *node[V] {
	if left == n.left && right == n.right {
		return n
	}
	return n.with(left, right)
}

// join puts together two trees of which every key of a is less than every key of b.
func join[V comparable](a, b *node[V]) *node[V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case above(a, b.priority, b.key):
		return a.with(a.left, join(a.right, b))
	}
	return b.with(join(a, b.left), b.right)
}

func (n *node[V]) prefix(prefix string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if strings.HasPrefix(n.key, prefix) {
		return n.left.prefix(prefix, yield) && yield(n.key, n.value) && n.right.prefix(prefix, yield)
	}
	if n.key < prefix {
		return n.right.prefix(prefix, yield)
	}
	return n.left.prefix(prefix, yield)
}

func (n *node[V]) from(first string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if n.key < first {
		return n.right.from(first, yield)
	}
	return n.left.from(first, yield) && yield(n.key, n.value) && n.right.from(first, yield)
}
