package xds

import (
	"slices"
	"strings"
	"unique"
)

// versions maps names to what a client was last sent: sorted, 16 bytes an entry, its names shared by all streams of
// the process. A thousand streams of two thousand resources each are 32 MB; as Go maps they would be four times that.
type versions struct {
	entries []entry
	// next is where the name after the last one found is: names are looked for in order when many are, and the one of a
	// lone change twice.
	next int
}

type entry struct {
	name unique.Handle[string]
	// version is zero while the client has nothing under the name.
	version Version
}

func (v *versions) search(name string) (int, bool) {
	for i := max(v.next-1, 0); i <= v.next && i < len(v.entries); i++ {
		if v.entries[i].name.Value() == name {
			v.next = i + 1
			return i, true
		}
	}
	if n := len(v.entries); n > 0 && v.entries[n-1].name.Value() < name {
		return n, false // names arrive in order when many arrive
	}
	i, ok := slices.BinarySearchFunc(v.entries, name, func(e entry, name string) int {
		return strings.Compare(e.name.Value(), name)
	})
	v.next = i + 1
	return i, ok
}

// find returns what is known of a name, until the next call of set or delete; nil: nothing.
func (v *versions) find(name string) *entry {
	i, ok := v.search(name)
	if !ok {
		return nil
	}
	return &v.entries[i]
}

func (v *versions) get(name string) (Version, bool) {
	if e := v.find(name); e != nil {
		return e.version, true
	}
	return Version{}, false
}

// set returns the entry, as find does.
func (v *versions) set(name string, version Version) *entry {
	i, ok := v.search(name)
	if !ok {
		v.entries = slices.Insert(v.entries, i, entry{name: unique.Make(name)})
	}
	v.entries[i].version = version
	return &v.entries[i]
}

// grow makes room for n more names.
func (v *versions) grow(n int) { v.entries = slices.Grow(v.entries, n) }

func (v *versions) delete(name string) {
	if i, ok := v.search(name); ok {
		v.entries = slices.Delete(v.entries, i, i+1)
	}
}

// clip gives back what growing left over.
func (v *versions) clip() {
	if cap(v.entries) > len(v.entries)+len(v.entries)/8 {
		v.entries = slices.Clone(v.entries)
	}
}

// sent counts the entries that the client has.
func (v *versions) sent() int {
	n := 0
	for _, e := range v.entries {
		if e.version != (Version{}) {
			n++
		}
	}
	return n
}
