package kube

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// engine is the records, what became of them, and what has yet to be looked at. Reflectors put records in; one loop
// takes the changes out.
type engine struct {
	metrics *metrics
	wake    chan struct{} // holds one when there is something to look at

	mu       sync.Mutex // guards what follows
	state    convert.State
	dirty    map[convert.Name]bool
	all      bool            // all Services are to be looked at
	listed   map[string]bool // resources that were listed once
	told     map[convert.Name][]mesh.Object
	leftOut  map[convert.Name][]convert.Rejection
	validity map[convert.Name]convert.Validity // of each ServiceExport
	exports  chan struct{}                     // holds one when validity, or what an export says of itself, changed
}

func newEngine(m *metrics) *engine {
	return &engine{
		metrics: m, wake: make(chan struct{}, 1), dirty: map[convert.Name]bool{}, listed: map[string]bool{}, exports: make(chan struct{}, 1),
		told: map[convert.Name][]mesh.Object{}, leftOut: map[convert.Name][]convert.Rejection{}, validity: map[convert.Name]convert.Validity{},
	}
}

// notify fills a channel that holds one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// mark wants names looked at. The caller holds mu.
func (e *engine) mark(names []convert.Name) {
	for _, name := range names {
		e.dirty[name] = true
	}
	if len(names) > 0 {
		notify(e.wake)
	}
}

func (e *engine) set(r convert.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mark(e.state.Set(r))
}

func (e *engine) delete(r convert.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mark(e.state.Delete(r))
}

// replace makes records all that there are of their kind: kind is any of it.
func (e *engine) replace(resource string, kind convert.Record, records []convert.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := map[convert.Name]bool{}
	for _, name := range e.state.Names(kind) {
		gone[name] = true
	}
	for _, r := range records {
		delete(gone, r.Of())
		e.mark(e.state.Set(r))
	}
	for name := range gone {
		e.mark(e.state.Delete(named(kind, name)))
	}
	e.listed[resource] = true
	notify(e.wake)
}

// named is an empty record of kind's kind.
func named(kind convert.Record, name convert.Name) convert.Record {
	switch kind.(type) {
	case *convert.Service:
		return &convert.Service{Name: name}
	case *convert.Slice:
		return &convert.Slice{Name: name}
	case *convert.Pod:
		return &convert.Pod{Name: name}
	case *convert.Export:
		return &convert.Export{Name: name}
	}
	return &convert.Node{Name: name.Name}
}

func (e *engine) isListed(resource string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.listed[resource]
}

// markServices wants services looked at, or all.
func (e *engine) markServices(services map[mesh.ServiceName]bool, all bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = e.all || all
	for name := range services {
		e.dirty[convert.Name{Namespace: name.Namespace, Name: name.Name}] = true
	}
}

// step looks at what changed and returns what that makes of the mesh objects. It returns false as long as a resource
// was not listed: the changes wait.
func (e *engine) step(env convert.Environment) (d mesh.Delta, news []news, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.listed) < resources {
		return d, nil, false
	}
	if e.all {
		e.mark(e.state.All())
		e.mark(slices.Collect(maps.Keys(e.told)))
	}
	for name := range e.dirty {
		if n := e.look(&d, env, name); n != nil {
			news = append(news, *n)
		}
	}
	clear(e.dirty)
	e.all = false
	return d, news, true
}

// everything is all that was told, in no order.
func (e *engine) everything() (out []mesh.Object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, objects := range e.told {
		out = append(out, objects...)
	}
	return out
}

// news is what is newly left out of a Service.
type news struct {
	name       convert.Name
	rejections []convert.Rejection
}

// look converts one Service, and adds to d what differs from the last time.
func (e *engine) look(d *mesh.Delta, env convert.Environment, name convert.Name) *news {
	result := e.state.Convert(env, name)
	before := make(map[mesh.Key]mesh.Object, len(e.told[name]))
	for _, object := range e.told[name] {
		before[object.Key()] = object
	}
	for i, object := range result.Objects {
		key := object.Key()
		old := before[key]
		delete(before, key)
		if old != nil && same(old, object) {
			result.Objects[i] = old
			continue
		}
		d.Upserts = append(d.Upserts, object)
	}
	d.Deletes = slices.AppendSeq(d.Deletes, maps.Keys(before))
	keep(e.told, name, result.Objects, len(result.Objects) > 0)
	e.export(name, result.Export)
	return e.reject(name, result.Rejections)
}

// keep sets or deletes.
func keep[V any](m map[convert.Name]V, name convert.Name, value V, there bool) {
	if there {
		m[name] = value
		return
	}
	delete(m, name)
}

func (e *engine) export(name convert.Name, now convert.Validity) {
	if before := e.validity[name]; before != "" {
		e.metrics.exports.WithLabelValues(truth(before)).Dec()
	}
	if now != "" {
		e.metrics.exports.WithLabelValues(truth(now)).Inc()
	}
	keep(e.validity, name, now, now != "")
	if now != "" {
		notify(e.exports)
	}
}

// reject counts what is left out, and returns what was not before.
func (e *engine) reject(name convert.Name, now []convert.Rejection) *news {
	before := e.leftOut[name]
	for _, r := range before {
		e.metrics.leftOut.WithLabelValues(string(r.Reason)).Dec()
	}
	var fresh []convert.Rejection
	for _, r := range now {
		e.metrics.leftOut.WithLabelValues(string(r.Reason)).Inc()
		if !slices.Contains(before, r) {
			e.metrics.rejections.WithLabelValues(string(r.Reason)).Inc()
			fresh = append(fresh, r)
		}
	}
	keep(e.leftOut, name, now, len(now) > 0)
	if len(fresh) == 0 {
		return nil
	}
	return &news{name, fresh}
}

// counts are the records of each resource, and the nodes of each region.
func (e *engine) counts() (objects map[string]int, regions map[string]int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state.Counts(), e.state.Regions()
}

// announcedOf are the endpoints of a service in the layer of those that announce themselves.
func announcedOf(layer *mesh.Snapshot) func(mesh.ServiceName) map[netip.Addr]convert.Announced {
	return func(service mesh.ServiceName) map[netip.Addr]convert.Announced {
		var out map[netip.Addr]convert.Announced
		for slice := range layer.Endpoints(service) {
			for _, endpoint := range slice.Endpoints {
				if out == nil {
					out = map[netip.Addr]convert.Announced{}
				}
				out[endpoint.Address] = convert.Announced{Slice: slice.Slice, Endpoint: endpoint}
			}
		}
		return out
	}
}

// same tells whether two objects of one key mean the same.
func same(a, b mesh.Object) bool {
	switch a := a.(type) {
	case *mesh.Service:
		b, ok := b.(*mesh.Service)
		return ok && a.Name == b.Name && a.Cluster == b.Cluster && a.Exported == b.Exported && slices.Equal(a.Ports, b.Ports)
	case *mesh.EndpointSlice:
		b, ok := b.(*mesh.EndpointSlice)
		return ok && a.Key() == b.Key() && slices.EqualFunc(a.Endpoints, b.Endpoints, sameEndpoint)
	}
	return false
}

func sameEndpoint(a, b mesh.Endpoint) bool {
	return a.Name == b.Name && a.Address == b.Address && a.Network == b.Network && a.Locality == b.Locality && a.Health == b.Health &&
		a.Weight == b.Weight && a.Identity == b.Identity && maps.Equal(a.Ports, b.Ports) && maps.Equal(a.Labels, b.Labels)
}
