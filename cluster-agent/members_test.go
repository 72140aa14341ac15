package clusteragent

import (
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// join makes another controller of the same plane and cluster.
func (c *controller) join(others ...mesh.Object) *controller {
	next := &controller{t: c.t, ca: c.ca, ttl: time.Hour, cluster: c.cluster, refuse: map[string]string{}}
	next.store.Update(mesh.Delta{Upserts: append([]mesh.Object{c.cluster}, others...)})
	next.store.MarkReady()
	next.start()
	c.t.Cleanup(next.stop)
	return next
}

// A controller joins after the agent has registered, and the one that the agent knew leaves for good: the agent reports
// to the new one and follows it, and finds it again after a restart.
func TestControllersAreFollowedAsTheyJoinAndLeave(t *testing.T) {
	first := newController(t, east(), west()...)
	f := newFixture(t, first)
	f.start()
	f.ready()
	first.has(mesh.ServiceKey(catalog, "east"), always)
	second := first.join(west()...)
	first.tell(first.address, second.address)
	second.tell(second.address)
	eventually(t, "the agent knows of both", func() bool {
		_, body := f.get("/debug/syncz")
		return strings.Contains(body, second.address)
	})
	first.stop()
	second.has(mesh.ServiceKey(catalog, "east"), always)
	second.store.Update(mesh.Delta{Upserts: []mesh.Object{&mesh.Service{
		Name: mesh.ServiceName{Namespace: "shop", Name: "novelty"}, Cluster: "west", Exported: true, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}},
	}}})
	eventually(t, "the feed goes on", func() bool {
		names, err := f.clusters(f.sidecar(f.workload()))
		return err == nil && strings.Contains(strings.Join(names, " "), "novelty.shop")
	})
	f.stop()
	f.token = ""
	f.start()
	f.ready()
	eventually(t, "connected to the second alone", func() bool {
		_, body := f.get("/debug/syncz")
		return strings.Contains(body, second.address) && !strings.Contains(body, first.address)
	})
}

func (c *controller) tell(members ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = members
}
