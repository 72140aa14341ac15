package xds

import (
	"iter"
	"maps"
	"slices"
)

// world is a state for tests: type -> name -> content. It is not written after it was used.
type world map[Type]map[string]string

func (w world) clone() world {
	c := make(world)
	for t, names := range w {
		c[t] = maps.Clone(names)
	}
	return c
}

func (w world) set(t Type, name, content string) {
	if w[t] == nil {
		w[t] = make(map[string]string)
	}
	w[t][name] = content
}

// worldCatalog shows everything to everybody.
type worldCatalog struct{}

func (worldCatalog) Get(w world, t Type, name string) (Resource, bool) {
	content, ok := w[t][name]
	if !ok {
		return Resource{}, false
	}
	return NewRawResource(t, name, []byte(content)), true
}

func (worldCatalog) Names(w world, t Type) iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(w[t])))
}

func (worldCatalog) Changed(old, now world) iter.Seq2[Type, string] {
	return func(yield func(Type, string) bool) {
		for _, t := range Types() {
			for name, content := range now[t] {
				if was, ok := old[t][name]; (!ok || was != content) && !yield(t, name) {
					return
				}
			}
			for name := range old[t] {
				if _, ok := now[t][name]; !ok && !yield(t, name) {
					return
				}
			}
		}
	}
}

// bodyOf is the content of a resource of a world.
func bodyOf(r Resource, t Type) string {
	any := r.Any
	skip := len(any) - len(body(any, len(t)))
	return string(any[skip:])
}

// body is what follows the type URL in a marshalled Any whose parts are shorter than 128 bytes.
func body(any []byte, typeLength int) []byte {
	rest := any[2+typeLength:]
	if len(rest) == 0 {
		return nil
	}
	return rest[2:]
}
