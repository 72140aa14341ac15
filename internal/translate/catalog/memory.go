package catalog

import (
	"slices"
	"sync"
	"sync/atomic"
	"unique"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/pmap"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// part is a view, or a part of one, as a key: a pointer, so that finding the memory of it costs next to nothing.
type part struct{ handle unique.Handle[translate.View] }

func partOf(v translate.View) part { return part{unique.Make(v)} }

func (p part) view() translate.View { return p.handle.Value() }

// memory is what a snapshot remembers for p.
func (p part) memory(s *mesh.Snapshot) *memory {
	return s.Memo(p, func() any { return &memory{view: p.view()} }).(*memory)
}

// memory is what was built for all clients that have a part of their view in common.
type memory struct {
	view                                   translate.View
	clusters, endpoints, routes, listeners shelf

	names     atomic.Pointer[[]string] // see requests; nil: not known yet
	inherited atomic.Bool
}

func (m *memory) of(t xds.Type) *shelf {
	switch t {
	case xds.Cluster:
		return &m.clusters
	case xds.Endpoints:
		return &m.endpoints
	case xds.Route:
		return &m.routes
	}
	return &m.listeners
}

// requests are the names of all clusters and endpoints, sorted; the caller must not write them.
func (m *memory) requests(s *mesh.Snapshot) []string {
	if known := m.names.Load(); known != nil {
		return *known
	}
	var names []string
	for service := range s.ServiceNames() {
		for r := range m.view.Requests(s, service) {
			names = append(names, m.view.RequestName(r))
		}
	}
	slices.Sort(names)
	m.names.Store(&names) // two may have been here: equal names
	return names
}

// inherit takes over from the memory of an older snapshot all that the step from there cannot have changed. Once is
// enough: what another older snapshot could add is little.
func (m *memory) inherit(old *memory, changed []resourceName, sameNames bool) {
	if m.inherited.Swap(true) {
		return
	}
	if sameNames {
		m.names.CompareAndSwap(nil, old.names.Load())
	}
	for _, t := range []xds.Type{xds.Cluster, xds.Endpoints, xds.Route} {
		m.of(t).inherit(old.of(t), func(yield func(string) bool) {
			for _, c := range changed {
				if c.kind == t && !yield(c.name) {
					return
				}
			}
		})
	}
}

// shelf has resources of one type by name. Reading takes no lock.
type shelf struct {
	mu        sync.Mutex // orders writers
	resources atomic.Pointer[pmap.Map[*kept]]
}

func (s *shelf) all() pmap.Map[*kept] {
	if all := s.resources.Load(); all != nil {
		return *all
	}
	return pmap.Map[*kept]{}
}

func (s *shelf) get(name string) *kept {
	k, _ := s.all().Get(name)
	return k
}

// add makes room for a resource that exists; another client may have been faster.
func (s *shelf) add(name string) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all()
	if k, ok := all.Get(name); ok {
		return k
	}
	k := new(kept)
	all = all.Set(name, k)
	s.resources.Store(&all)
	return k
}

// inherit costs what changed, and what clients that were faster have asked for already.
func (s *shelf) inherit(old *shelf, changed func(func(string) bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := old.all()
	for name := range changed {
		all = all.Delete(name)
	}
	for name, k := range s.all().All() {
		all = all.Set(name, k)
	}
	s.resources.Store(&all)
}

// kept is one resource, built by the first who needs it. It refers to no snapshot.
type kept struct {
	once sync.Once
	is   xds.Resource
}

func (k *kept) resource(t xds.Type, name string, build func() []byte) xds.Resource {
	k.once.Do(func() { k.is = xds.NewRawResource(t, name, build()) })
	return k.is
}
