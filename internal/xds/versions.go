package xds

import (
	"slices"
	"strings"
	"unique"
)

// versions maps names to what a client was last sent: sorted, 16 bytes an entry, its names shared by all streams of
// the process. A thousand streams of two thousand resources each are 32 MB; as Go maps they would be four times that.
type versions struct{ entries []entry }

type entry struct {
	name unique.Handle[string]
	// version is zero while the client has nothing under the name.
	version Version
}

func (v *versions) search(name string) (int, bool) {
	if n := len(v.entries); n > 0 && v.entries[n-1].name.Value() < name {
		return n, false // names arrive in order when many arrive
	}
	return slices.BinarySearchFunc(v.entries, name, func(e entry, name string) int {
		return strings.Compare(e.name.Value(), name)
	})
}

func (v *versions) get(name string) (Version, bool) {
	i, ok := v.search(name)
	if !ok {
		return Version{}, false
	}
	return v.entries[i].version, true
}

func (v *versions) set(name string, version Version) {
	i, ok := v.search(name)
	if ok {
		v.entries[i].version = version
		return
	}
	v.entries = slices.Insert(v.entries, i, entry{unique.Make(name), version})
}

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
