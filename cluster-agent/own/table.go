package own

import (
	"fmt"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// Source is who said it. The numbers are written to disk.
type Source uint8

// The sources.
const (
	File Source = iota
	Workloads
	Trust
	Kubernetes
	Etcd
	sources
)

// precedence is whose word is in force: the first of them that has one. People come first; then Kubernetes and etcd,
// which define the services that sidecars announce themselves for; but of itself a sidecar knows better than etcd.
func precedence(kind mesh.Kind) [sources]Source {
	if kind == mesh.KindService {
		return [...]Source{File, Kubernetes, Etcd, Workloads, Trust}
	}
	return [...]Source{File, Kubernetes, Workloads, Trust, Etcd}
}

// String is the source's name in logs and debug pages.
func (s Source) String() string {
	return [...]string{"file", "workloads", "trust", "kubernetes", "etcd", "unknown"}[min(s, sources)]
}

// Valid tells whether s is one of the sources.
func (s Source) Valid() bool { return s < sources }

// Owner is a cluster and its trust domain: whose objects a table holds.
type Owner struct {
	Cluster mesh.ClusterID
	Domain  spiffeid.TrustDomain
}

// Owns tells whether the agent of o, and nobody else, may say what is at key.
func (o Owner) Owns(key mesh.Key) bool {
	switch key.Kind() {
	case mesh.KindService, mesh.KindEndpoints, mesh.KindSummary, mesh.KindGateway:
		cluster, ok := key.Cluster()
		return ok && cluster == o.Cluster
	case mesh.KindFederation:
		return key == mesh.FederationKey(o.Domain.Name())
	}
	return false
}

// Table is the layers and the store they are merged into. Safe for concurrent use.
type Table struct {
	owner Owner
	store *mesh.Store

	mu      sync.Mutex // orders the sources' changes, so that the store sees them in the order of the layers'
	layers  [sources]map[mesh.Key]mesh.Object
	mirrors [sources]*mesh.Store // of the layers that somebody watches
}

// New returns an empty table of owner in store.
func New(store *mesh.Store, owner Owner) *Table {
	t := &Table{owner: owner, store: store}
	for i := range t.layers {
		t.layers[i] = map[mesh.Key]mesh.Object{}
	}
	return t
}

// Owner is whose objects these are.
func (t *Table) Owner() Owner { return t.owner }

// Apply changes the layer of source by d. It panics on an object of another cluster: sources make only their own.
func (t *Table) Apply(source Source, d mesh.Delta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.apply(source, d)
}

// Replace makes objects the whole layer of source: what it had beside them is gone.
func (t *Table) Replace(source Source, objects []mesh.Object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := make(map[mesh.Key]bool, len(objects))
	for _, object := range objects {
		keep[object.Key()] = true
	}
	d := mesh.Delta{Upserts: objects}
	for key := range t.layers[source] {
		if !keep[key] {
			d.Deletes = append(d.Deletes, key)
		}
	}
	t.apply(source, d)
}

// Watch returns a store of what source says, whether it is in force or not. It has everything when Watch returns.
func (t *Table) Watch(source Source) *mesh.Store {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mirrors[source] == nil {
		var all mesh.Delta
		for _, object := range t.layers[source] {
			all.Upserts = append(all.Upserts, object)
		}
		t.mirrors[source] = new(mesh.Store)
		t.mirrors[source].Update(all)
	}
	return t.mirrors[source]
}

func (t *Table) apply(source Source, d mesh.Delta) {
	var out mesh.Delta
	layer := t.layers[source]
	for _, key := range d.Deletes {
		before, _ := t.effective(key)
		delete(layer, key)
		t.step(&out, key, before)
	}
	for _, object := range d.Upserts {
		key := object.Key()
		if !t.owner.Owns(key) {
			panic(fmt.Sprintf("own: source %s wrote %s, which is not cluster %q's", source, key, t.owner.Cluster))
		}
		before, _ := t.effective(key)
		layer[key] = object
		t.step(&out, key, before)
	}
	if len(out.Upserts)+len(out.Deletes) > 0 {
		t.store.Update(out)
	}
	if mirror := t.mirrors[source]; mirror != nil {
		mirror.Update(d)
	}
}

// step adds to out what became of key, unless it means the same as before.
func (t *Table) step(out *mesh.Delta, key mesh.Key, before mesh.Object) {
	after, _ := t.effective(key)
	switch {
	case after == before:
	case after == nil:
		out.Deletes = append(out.Deletes, key)
	case before == nil || meshpb.Digest(before) != meshpb.Digest(after):
		out.Upserts = append(out.Upserts, after)
	}
}

func (t *Table) effective(key mesh.Key) (mesh.Object, Source) {
	for _, source := range precedence(key.Kind()) {
		if object, ok := t.layers[source][key]; ok {
			return object, source
		}
	}
	return nil, sources
}

// Get returns what source says of key.
func (t *Table) Get(source Source, key mesh.Key) (mesh.Object, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	object, ok := t.layers[source][key]
	return object, ok
}

// SourceOf tells whose word is in force at key.
func (t *Table) SourceOf(key mesh.Key) (Source, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	object, source := t.effective(key)
	return source, object != nil
}

// Layer returns everything that source says, in no order.
func (t *Table) Layer(source Source) []mesh.Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]mesh.Object, 0, len(t.layers[source]))
	for _, object := range t.layers[source] {
		out = append(out, object)
	}
	return out
}
