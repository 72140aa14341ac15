package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/internal/feed"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/xds"
)

type (
	revision = mesh.Revision
	digest   = [sha256.Size]byte
)

// invariants are looked at while the script runs.
type invariants struct {
	w *world

	mu      sync.Mutex
	digests map[revision]digest // of the state, by whichever replica had it first
	gone    map[string]bool     // clusters that may leave assignments
	removed map[string]bool     // clusters whose own clients lose the others, too
}

// allow says whether a cluster may leave assignments.
func (i *invariants) allow(cluster string, allowed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gone == nil {
		i.gone = map[string]bool{}
	}
	i.gone[cluster] = allowed
}

// allowed tells whether cluster may leave an assignment of a client in cluster of.
func (i *invariants) allowed(cluster, of string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.gone[cluster] || i.removed[of]
}

func (i *invariants) setRemoved(cluster string, removed bool) {
	i.allow(cluster, removed)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.removed == nil {
		i.removed = map[string]bool{}
	}
	i.removed[cluster] = removed
}

// watchReplica looks at every state of a replica that it can catch: I2 and I4.
func (i *invariants) watchReplica(ctx context.Context, id string, store *mesh.Store) {
	for {
		snapshot, changed := store.Latest()
		i.equal(id, snapshot)
		for object := range objects(snapshot) {
			if err := confined(snapshot, object); err != nil {
				i.w.errorf("I4: controller %s: %v", id, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (i *invariants) equal(id string, s *mesh.Snapshot) {
	sum := digestOf(s)
	i.mu.Lock()
	defer i.mu.Unlock()
	first, ok := i.digests[s.Revision()]
	if ok && first != sum {
		i.w.errorf("I2: controller %s differs from another at revision %d", id, s.Revision())
	}
	i.digests[s.Revision()] = sum
}

func digestOf(s *mesh.Snapshot) (out digest) {
	hash := sha256.New()
	for key, object := range s.All() {
		sum := meshpb.Digest(object)
		fmt.Fprintf(hash, "%s %x\n", key, sum)
	}
	hash.Sum(out[:0])
	return out
}

func objects(s *mesh.Snapshot) iter.Seq[mesh.Object] {
	return func(yield func(mesh.Object) bool) {
		for _, object := range s.All() {
			if !yield(object) {
				return
			}
		}
	}
}

// confined tells why an object is not its cluster's to have. One of a cluster that is not registered is on its way
// out, which [orphan] sees to in the end.
func confined(s *mesh.Snapshot, object mesh.Object) error {
	switch o := object.(type) {
	case *mesh.EndpointSlice:
		c := s.Cluster(o.Cluster)
		if c == nil {
			return nil
		}
		if !c.AdmitsNamespace(o.Service.Namespace) {
			return fmt.Errorf("%s: namespace is not the cluster's", o.Key())
		}
		for _, e := range o.Endpoints {
			if err := c.Admits(e.Network, e.Address); err != nil {
				return fmt.Errorf("%s: %w", o.Key(), err)
			}
			if e.Identity.TrustDomain() != c.TrustDomain {
				return fmt.Errorf("%s: identity %s", o.Key(), e.Identity)
			}
		}
	case *mesh.Gateway:
		if c := s.Cluster(o.Cluster); c != nil {
			return c.Admits(o.Network, o.Address)
		}
	}
	return nil
}

func orphan(s *mesh.Snapshot, object mesh.Object) error {
	id, ok := object.Key().Cluster()
	if object.Key().Kind() != mesh.KindCluster && ok && s.Cluster(id) == nil {
		return fmt.Errorf("%s is there without its cluster's registration", object.Key())
	}
	return nil
}

// settle waits until the mesh is at rest, and everything is as it must be then.
func (w *world) settle() {
	w.t.Helper()
	w.until("replicas agree", 2*time.Minute, w.replicasAgree)
	w.until("agents are up to date", 2*time.Minute, w.agentsAgree)
	w.until("clients are up to date", 2*time.Minute, w.clientsAgree)
	for object := range objects(w.truth()) {
		if err := orphan(w.truth(), object); err != nil {
			w.errorf("I4: %v", err)
		}
	}
}

// truth is the state of a replica.
func (w *world) truth() *mesh.Snapshot {
	for _, c := range w.controllers {
		if c.up() {
			return c.snapshot()
		}
	}
	return mesh.Empty
}

// replicasAgree is I2 at rest.
func (w *world) replicasAgree() error {
	var first *controller
	for _, c := range w.controllers {
		if !c.up() {
			continue
		}
		select {
		case <-c.store.Ready():
		default:
			return fmt.Errorf("controller %s is not ready", c.id)
		}
		if first == nil {
			first = c
		}
		if digestOf(c.snapshot()) != digestOf(first.snapshot()) {
			return fmt.Errorf("I2: controllers %s and %s differ", c.id, first.id)
		}
	}
	return nil
}

// agentsAgree tells whether each agent knows what it would know if it asked anew, and each endpoint is as announced.
func (w *world) agentsAgree() error {
	for _, c := range w.clusters {
		if !c.up() {
			continue
		}
		if err := c.announced(w.truth()); err != nil {
			return err
		}
		have, _ := c.store.Latest()
		if err := same(have, c.fromScratch(w.truth())); err != nil {
			return fmt.Errorf("I3: agent of %s: %w", c.name, err)
		}
	}
	return nil
}

// announced tells whether the mesh has exactly those of the cluster's endpoints that live, as they are now.
func (c *cluster) announced(s *mesh.Snapshot) error {
	want := map[string]uint32{}
	for _, e := range c.endpoints {
		if e.up() && len(e.request.GetServices()) > 0 {
			want[e.request.GetName()] = e.request.GetServices()[0].GetPorts()[0].GetEndpointPort()
		}
	}
	for slice := range s.Endpoints(mesh.ServiceName{Namespace: "shop", Name: "catalog"}) {
		if slice.Cluster != c.id() {
			continue
		}
		for _, e := range slice.Endpoints {
			if want[e.Name] != uint32(e.Ports["http"]) || e.Health != mesh.Healthy {
				return fmt.Errorf("endpoint %s of %s is %s at port %d, announced was %d", e.Name, c.name, e.Health, e.Ports["http"], want[e.Name])
			}
			delete(want, e.Name)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("endpoints of %s that the mesh does not have: %v", c.name, want)
	}
	return nil
}

// same compares by content.
func same(have, want *mesh.Snapshot) error {
	for key, object := range want.All() {
		held, ok := have.Get(key)
		if !ok {
			return fmt.Errorf("%s is missing", key)
		}
		if meshpb.Digest(held) != meshpb.Digest(object) {
			return fmt.Errorf("%s is another version", key)
		}
	}
	for key := range have.All() {
		if _, ok := want.Get(key); !ok {
			return fmt.Errorf("%s does not exist", key)
		}
	}
	return nil
}

// fromScratch is what an agent with an empty disk would come to know of s.
func (c *cluster) fromScratch(s *mesh.Snapshot) *mesh.Snapshot {
	var all []mesh.Object
	domain := mesh.FederationKey(c.ca.TrustDomain.Name())
	for key, object := range s.All() {
		owner, ok := key.Cluster()
		own := ok && owner == c.id() && slices.Contains([]mesh.Kind{mesh.KindService, mesh.KindEndpoints, mesh.KindGateway}, key.Kind())
		if own || key == domain {
			all = append(all, object)
		}
	}
	agents := feed.Catalog(c.id())
	for name := range agents.Names(s, xds.MeshObject) {
		resource, ok := agents.Get(s, xds.MeshObject, name)
		if ok && mesh.Key(name) != domain {
			all = append(all, unpack(resource))
		}
	}
	return new(mesh.Store).Restore(1, all)
}

func unpack(r xds.Resource) mesh.Object {
	var m anypb.Any
	if err := proto.Unmarshal(r.Any, &m); err != nil {
		panic(err)
	}
	object, err := meshpb.Unmarshal(m.GetValue())
	if err != nil {
		panic(err)
	}
	return object
}

// clientsAgree is I3: each client has what a translation from scratch of the final state gives, and nothing else.
func (w *world) clientsAgree() error {
	for _, k := range w.clients {
		if err := k.agrees(w.truth()); err != nil {
			return fmt.Errorf("I3: %s: %w", k.name, err)
		}
	}
	return nil
}

func (k *client) agrees(truth *mesh.Snapshot) error {
	state := new(mesh.Store).Restore(1, slices.Collect(objects(truth)))
	if !k.direct && k.target() == "agent" {
		state = k.c.fromScratch(truth)
	}
	view, err := translate.ViewOf(translate.Sidecar, k.c.id(), "shop", k.node)
	if err != nil {
		return err
	}
	from := catalog.Of(view)
	want := map[xds.Type][]string{}
	for _, t := range []xds.Type{xds.Cluster, xds.Listener, xds.Endpoints, xds.Route} {
		want[t] = slices.Collect(from.Names(state, t))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for t, names := range want {
		if len(k.held[t]) != len(names) {
			return fmt.Errorf("%d resources of %s, want %v", len(k.held[t]), t, names)
		}
		for _, name := range names {
			resource, _ := from.Get(state, t, name)
			if held, ok := k.held[t][name]; !ok || held.Version != resource.Version {
				return fmt.Errorf("%s is version %s, want %s", name, held.Version, resource.Version)
			}
		}
	}
	return k.confined(state)
}

// confined is I4 at the client.
func (k *client) confined(s *mesh.Snapshot) error {
	for _, item := range k.held[xds.Endpoints] {
		for _, a := range placed(item) {
			c := s.Cluster(mesh.ClusterID(a.cluster))
			if c == nil {
				return fmt.Errorf("I4: %s: cluster %s is not registered", item.Name, a.cluster)
			}
			if !c.Networks[0].CIDRs[0].Contains(netip.MustParseAddr(a.ip)) {
				return fmt.Errorf("I4: %s: %s is not in cluster %s", item.Name, a.ip, a.cluster)
			}
		}
	}
	return nil
}
