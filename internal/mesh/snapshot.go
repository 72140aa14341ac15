package mesh

import (
	"iter"
	"sync"

	"github.com/periplus-mesh/periplus/internal/pmap"
)

// Revision orders snapshots: the raft index on the global side, a count of commits in an agent.
type Revision uint64

// Snapshot is one version of the whole mesh. It never changes.
type Snapshot struct {
	revision Revision
	objects  pmap.Map[Object]
	memo     sync.Map // key -> *memoised
}

// Empty is the snapshot of a mesh of which nothing is known.
var Empty = &Snapshot{}

type memoised struct {
	once  sync.Once
	value any
}

// Memo returns what compute returned the first time that key was asked for in this snapshot. A result lives and
// dies with the snapshot, so it cannot be stale as long as compute depends on the snapshot and the key only.
func (s *Snapshot) Memo(key any, compute func() any) any {
	entry, ok := s.memo.Load(key)
	if !ok {
		entry, _ = s.memo.LoadOrStore(key, new(memoised))
	}
	m := entry.(*memoised)
	m.once.Do(func() { m.value = compute() })
	return m.value
}

// Revision of the snapshot.
func (s *Snapshot) Revision() Revision { return s.revision }

// Len returns the number of objects.
func (s *Snapshot) Len() int { return s.objects.Len() }

// Get returns the object at key.
func (s *Snapshot) Get(key Key) (Object, bool) { return s.objects.Get(string(key)) }

// All yields every object in key order.
func (s *Snapshot) All() iter.Seq2[Key, Object] { return s.scan("") }

// Scan yields, in key order, the objects whose keys begin with prefix.
func (s *Snapshot) Scan(prefix string) iter.Seq2[Key, Object] { return s.scan(prefix) }

func (s *Snapshot) scan(prefix string) iter.Seq2[Key, Object] {
	return func(yield func(Key, Object) bool) {
		for key, object := range s.objects.Prefix(prefix) {
			if !yield(Key(key), object) {
				return
			}
		}
	}
}

// Cluster returns a registered cluster, or nil.
func (s *Snapshot) Cluster(id ClusterID) *Cluster { return get[*Cluster](s, ClusterKey(id)) }

// Clusters yields the registered clusters by name.
func (s *Snapshot) Clusters() iter.Seq[*Cluster] { return typed[*Cluster](s, KindCluster) }

// Service returns what cluster c says of a service, or nil.
func (s *Snapshot) Service(n ServiceName, c ClusterID) *Service {
	return get[*Service](s, ServiceKey(n, c))
}

// Services yields what each cluster says of a service, by cluster.
func (s *Snapshot) Services(n ServiceName) iter.Seq[*Service] {
	return typed[*Service](s, KindService, n.Namespace, n.Name)
}

// ServiceNames yields every service that any cluster has, once, by namespace and name.
func (s *Snapshot) ServiceNames() iter.Seq[ServiceName] {
	return func(yield func(ServiceName) bool) {
		var last ServiceName
		for object := range typed[*Service](s, KindService) {
			if object.Name == last {
				continue
			}
			if last = object.Name; !yield(last) {
				return
			}
		}
	}
}

// Endpoints yields the slices of a service, by cluster and slice.
func (s *Snapshot) Endpoints(n ServiceName) iter.Seq[*EndpointSlice] {
	return typed[*EndpointSlice](s, KindEndpoints, n.Namespace, n.Name)
}

// Summaries yields the summaries of a service, by cluster and locality.
func (s *Snapshot) Summaries(n ServiceName) iter.Seq[*Summary] {
	return typed[*Summary](s, KindSummary, n.Namespace, n.Name)
}

// Gateways yields every gateway, by cluster and name.
func (s *Snapshot) Gateways() iter.Seq[*Gateway] { return typed[*Gateway](s, KindGateway) }

// Policies yields the policies of a kind, by namespace and name.
func (s *Snapshot) Policies(kind PolicyKind) iter.Seq[*Policy] {
	return typed[*Policy](s, KindPolicy, string(kind))
}

// RemovedReplica is a replica that left, or nil.
func (s *Snapshot) RemovedReplica(id string) *RemovedReplica {
	return get[*RemovedReplica](s, RemovedReplicaKey(id))
}

// Federations yields the published bundles, by trust domain.
func (s *Snapshot) Federations() iter.Seq[*Federation] { return typed[*Federation](s, KindFederation) }

func get[T Object](s *Snapshot, key Key) (t T) {
	object, ok := s.Get(key)
	if ok {
		t = object.(T)
	}
	return t
}

func typed[T Object](s *Snapshot, kind Kind, parts ...string) iter.Seq[T] {
	prefix := string(join(kind, parts...))
	if len(parts) > 0 {
		prefix += "/"
	}
	return func(yield func(T) bool) {
		for _, object := range s.objects.Prefix(prefix) {
			if !yield(object.(T)) {
				return
			}
		}
	}
}

// Change is what became of one key. Old is nil if it is new, New is nil if it is gone.
type Change struct{ Old, New Object }

// Diff yields, by key, every object that differs between two snapshots. Cost grows with the difference, not with
// the snapshots, when one descends from the other.
func Diff(old, now *Snapshot) iter.Seq2[Key, Change] {
	return func(yield func(Key, Change) bool) {
		for key, change := range now.objects.Diff(old.objects) {
			if !yield(Key(key), Change{Old: change.Old, New: change.New}) {
				return
			}
		}
	}
}
