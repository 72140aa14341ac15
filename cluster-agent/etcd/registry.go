package etcd

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// entry is one key, and what it means.
type entry struct {
	path   string
	name   Name
	value  []byte // newest
	lease  int64  // 0: none
	record Record // of the newest good value; empty: there was none
	good   []byte // that value
	// reason is why value is refused; "": it is not.
	reason string
	// lost is when it was found missing; zero: it is there. held: it stays as it was meanwhile.
	lost time.Time
	held bool
}

func (e *entry) workload() bool { return e.record.Slice != nil }

// registry is all entries of the cluster and what they mean together. It is pure: it reads no clock and does no I/O.
type registry struct {
	cluster *mesh.Cluster
	grace   time.Duration
	ours    func(lease int64) bool

	entries map[string]*entry // by path
	slices  map[mesh.Key]map[string]*entry
	members map[mesh.ServiceName]map[string]*entry // definition and workloads of a service
	lost    map[string]*entry

	dirtySlices   map[mesh.Key]bool
	dirtyServices map[mesh.ServiceName]bool
	emitted       map[mesh.Key]mesh.Object

	refused uint64 // values, ever
}

func newRegistry(cluster *mesh.Cluster, grace time.Duration, ours func(lease int64) bool) *registry {
	return &registry{
		cluster: cluster, grace: grace, ours: ours, entries: map[string]*entry{}, slices: map[mesh.Key]map[string]*entry{},
		members: map[mesh.ServiceName]map[string]*entry{}, lost: map[string]*entry{}, dirtySlices: map[mesh.Key]bool{},
		dirtyServices: map[mesh.ServiceName]bool{}, emitted: map[mesh.Key]mesh.Object{},
	}
}

// restore takes what the source said before a restart: a list must have it, or it is lost.
func (r *registry) restore(objects []mesh.Object) {
	for _, object := range objects {
		r.emitted[object.Key()] = object
		switch o := object.(type) {
		case *mesh.Service:
			r.restored(Name{Folder: Services, Service: o.Name}, Record{Service: o})
		case *mesh.EndpointSlice:
			r.restored(Name{Folder: Endpoints, Service: o.Service, Workload: o.Slice}, Record{Slice: o})
		}
	}
}

func (r *registry) restored(name Name, record Record) {
	e := &entry{path: name.Path(), name: name, record: record}
	e.good, _ = record.Format() // of objects that were parsed once
	e.value = e.good
	r.enter(e)
}

// put is a value that was written at path. It returns the entry if the value is refused.
func (r *registry) put(path string, value []byte, lease int64) (refused *entry) {
	if lease != 0 && r.ours(lease) {
		r.remove(path)
		return nil
	}
	e := r.entries[path]
	if e != nil && e.lost.IsZero() && bytes.Equal(e.value, value) {
		e.lease = lease
		return nil
	}
	name, err := ParseName(path)
	next := &entry{path: path, name: name, value: value, lease: lease}
	if e != nil {
		next.record, next.good = e.record, e.good
	}
	if err != nil {
		next.reason = err.Error()
	} else {
		r.judge(next)
	}
	r.leave(e)
	r.enter(next)
	if next.reason == "" {
		return nil
	}
	r.refused++
	return next
}

// judge reads the newest value, and the last good one if that is refused.
func (r *registry) judge(e *entry) {
	record, err := ParseRecord(e.name, e.value, r.cluster)
	if err == nil {
		e.record, e.good, e.reason = record, e.value, ""
		return
	}
	e.reason = err.Error()
	if e.good == nil {
		return
	}
	if e.record, err = ParseRecord(e.name, e.good, r.cluster); err != nil {
		e.good = nil // the cluster's registration does not admit it any more
	}
}

// deleted is the end of path: told by who wrote it if it was draining or had no lease; else its lease ended.
func (r *registry) deleted(path string, now time.Time) {
	e := r.entries[path]
	switch {
	case e == nil:
	case e.lease == 0 || !e.workload() || e.record.Slice.Endpoints[0].Health == mesh.Draining:
		r.remove(path)
	default:
		r.lose(e, now)
	}
}

// listed is everything that there is: what is not in it, is lost.
func (r *registry) listed(there map[string]bool, now time.Time) {
	nothing := len(there) == 0
	for path, e := range r.entries {
		switch {
		case there[path]:
		case !e.lost.IsZero():
			e.lost = now // nobody could write it while etcd was out of reach
		case !e.workload() && e.name.Folder != Services:
			r.remove(path) // it never was anything
		default:
			r.lose(e, now)
			e.held = nothing
		}
	}
	r.assess()
}

func (r *registry) lose(e *entry, now time.Time) {
	if e.lost.IsZero() {
		e.lost = now
		r.lost[e.path] = e
		r.mark(e)
	}
}

// massMinimum is how few lost workloads are never taken for etcd's loss.
const massMinimum = 3

// assess holds what is lost if it is most of what there was: workloads do not end together, leases do.
func (r *registry) assess() {
	lost, all := 0, 0
	for _, e := range r.lost {
		if e.workload() {
			lost++
		}
	}
	if lost < massMinimum {
		return
	}
	for _, e := range r.entries {
		if e.workload() {
			all++
		}
	}
	if 2*lost <= all {
		return
	}
	for _, e := range r.lost {
		if !e.held {
			e.held = true
			r.mark(e)
		}
	}
}

// tick removes what has been lost for long enough. Call it only while etcd answers: else nobody could come back.
func (r *registry) tick(now time.Time) {
	if len(r.lost) == 0 {
		return
	}
	r.assess()
	for path, e := range r.lost {
		wait := r.grace
		if e.held {
			wait *= 3
		}
		if now.Sub(e.lost) >= wait {
			r.remove(path)
		}
	}
}

// register judges everything by another registration of the cluster. It returns what is refused now.
func (r *registry) register(cluster *mesh.Cluster) (refused []*entry) {
	r.cluster = cluster
	for _, e := range r.entries {
		if _, err := ParseName(e.path); err != nil {
			continue
		}
		before := e.reason
		r.leave(e)
		r.judge(e)
		r.enter(e)
		if e.reason != "" && e.reason != before {
			refused = append(refused, e)
		}
	}
	return refused
}

func (r *registry) remove(path string) { r.leave(r.entries[path]) }

func (r *registry) enter(e *entry) {
	r.entries[e.path] = e
	if !e.lost.IsZero() {
		r.lost[e.path] = e
	}
	if e.record.Slice != nil {
		add(r.slices, e.record.Slice.Key(), e)
	}
	if e.record != (Record{}) {
		add(r.members, e.name.Service, e)
	}
	r.mark(e)
}

func (r *registry) leave(e *entry) {
	if e == nil {
		return
	}
	r.mark(e)
	delete(r.entries, e.path)
	delete(r.lost, e.path)
	if e.record.Slice != nil {
		drop(r.slices, e.record.Slice.Key(), e)
	}
	drop(r.members, e.name.Service, e)
}

func add[K comparable](index map[K]map[string]*entry, key K, e *entry) {
	if index[key] == nil {
		index[key] = map[string]*entry{}
	}
	index[key][e.path] = e
}

func drop[K comparable](index map[K]map[string]*entry, key K, e *entry) {
	delete(index[key], e.path)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}

func (r *registry) mark(e *entry) {
	if e.record.Slice != nil {
		r.dirtySlices[e.record.Slice.Key()] = true
	}
	if e.record.Service != nil {
		r.dirtyServices[e.name.Service] = true
	}
}

// changed tells whether commit may have something to say.
func (r *registry) changed() bool { return len(r.dirtySlices)+len(r.dirtyServices) > 0 }

// commit is what changed in the meaning of the entries since the last commit.
func (r *registry) commit() (d mesh.Delta) {
	for key := range r.dirtySlices {
		r.emit(&d, key, r.slice(key))
	}
	for name := range r.dirtyServices {
		r.emit(&d, mesh.ServiceKey(name, r.cluster.ID), r.service(name))
	}
	clear(r.dirtySlices)
	clear(r.dirtyServices)
	return d
}

func (r *registry) emit(d *mesh.Delta, key mesh.Key, object mesh.Object) {
	before := r.emitted[key]
	switch {
	case object == nil && before != nil:
		delete(r.emitted, key)
		d.Deletes = append(d.Deletes, key)
	case object != nil && (before == nil || meshpb.Digest(before) != meshpb.Digest(object)):
		r.emitted[key] = object
		d.Upserts = append(d.Upserts, object)
	}
}

// objects is everything that commit has said, together.
func (r *registry) objects() []mesh.Object {
	out := make([]mesh.Object, 0, len(r.emitted))
	for _, object := range r.emitted {
		out = append(out, object)
	}
	return out
}

// slice is the workload of key: what is there comes before what is lost, the workload's own word before its sidecar's.
func (r *registry) slice(key mesh.Key) mesh.Object {
	var best *entry
	for _, e := range r.slices[key] {
		if best == nil || better(e, best) {
			best = e
		}
	}
	switch {
	case best == nil:
		return nil
	case best.lost.IsZero() || best.held:
		return best.record.Slice
	}
	return best.record.unhealthy().Slice
}

func better(a, b *entry) bool {
	if a.lost.IsZero() != b.lost.IsZero() {
		return a.lost.IsZero()
	}
	return a.path < b.path
}

// service is the definition of name, or else what its workloads say together. A lost definition counts as long as no
// workload that is there says anything.
func (r *registry) service(name mesh.ServiceName) mesh.Object {
	var definition *entry
	var said []*entry
	alive := false
	for _, e := range r.members[name] {
		switch {
		case e.name.Folder == Services:
			definition = e
		case e.record.Service != nil:
			said = append(said, e)
			alive = alive || e.lost.IsZero()
		}
	}
	if definition != nil && (definition.lost.IsZero() || !alive) {
		return definition.record.Service
	}
	if len(said) == 0 {
		return nil
	}
	slices.SortFunc(said, func(a, b *entry) int { return cmp.Compare(a.path, b.path) })
	return union(name, said)
}

// union has the ports that the entries say, in the order of their paths; a port that contradicts an earlier one is
// left out.
func union(name mesh.ServiceName, said []*entry) *mesh.Service {
	out := &mesh.Service{Name: name, Cluster: said[0].record.Service.Cluster}
	for _, e := range said {
		out.Exported = out.Exported || e.record.Service.Exported
		for _, port := range e.record.Service.Ports {
			contradicts := func(other mesh.ServicePort) bool { return other.Name == port.Name || other.Port == port.Port }
			if !slices.ContainsFunc(out.Ports, contradicts) {
				out.Ports = append(out.Ports, port)
			}
		}
	}
	return out
}
