package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

var (
	seeds    = flag.Int("seeds", 20, "how many seeds TestNemesis plays")
	seed     = flag.Uint64("seed", 1, "the first seed of TestNemesis")
	duration = flag.Duration("nemesis", 15*time.Second, "how long faults go on, in virtual time")
)

// F30: random faults in random combination, under churn. Afterwards all is healed, and the invariants hold.
func TestNemesis(t *testing.T) {
	for s := *seed; s < *seed+uint64(*seeds); s++ {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				n := &nemesis{w: w, r: rand.New(rand.NewPCG(s, s))}
				defer func() {
					if t.Failed() {
						t.Logf("schedule:\n%s", strings.Join(n.story, "\n"))
						t.Logf("replay: go test -race ./integration/sim -run TestNemesis -seed %d -seeds 1 -count 20", s)
					}
				}()
				w.build()
				n.play(*duration)
				n.heal()
				w.now("after seed " + fmt.Sprint(s))
				w.settle()
			})
		})
	}
}

// nemesis is a schedule of faults. What it does next depends on its seed and on what it did before, and on nothing
// that the mesh answers.
type nemesis struct {
	w     *world
	r     *rand.Rand
	story []string
	undo  []fault
}

// fault is something to be undone.
type fault struct {
	what string
	undo func()
}

func (n *nemesis) play(d time.Duration) {
	acts := []struct {
		weight int
		do     func()
	}{
		{8, n.churn}, {2, n.comeAndGo}, {2, n.killController}, {3, n.cutController}, {2, n.cutAgent}, {2, n.killAgent},
		{1, n.restartAgent}, {2, n.cutSidecar}, {1, n.drain}, {2, n.policy}, {1, n.delay}, {5, n.undoOne},
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(n.r.Int64N(int64(600 * time.Millisecond))))
		total := 0
		for _, a := range acts {
			total += a.weight
		}
		for i := n.r.IntN(total); ; {
			if i < acts[0].weight {
				acts[0].do()
				break
			}
			i -= acts[0].weight
			acts = append(acts[1:], acts[0])
		}
	}
}

func (n *nemesis) tell(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	n.w.now(what)
	n.story = append(n.story, fmt.Sprintf("%12s %s", time.Since(n.w.began).Round(time.Millisecond), what))
}

func (n *nemesis) later(what string, undo func()) { n.undo = append(n.undo, fault{what, undo}) }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (n *nemesis) undoOne() {
	if len(n.undo) == 0 {
		return
	}
	i := n.r.IntN(len(n.undo))
	f := n.undo[i]
	n.undo = append(n.undo[:i], n.undo[i+1:]...)
	n.tell("undo: %s", f.what)
	f.undo()
}

func (n *nemesis) heal() {
	for len(n.undo) > 0 {
		n.undoOne()
	}
	n.w.network.SetDelay(0)
	for _, c := range n.w.clusters {
		n.w.now("activate " + c.name)
		n.w.until("active", time.Minute, func() error { return n.w.setState(c.name, pb.ClusterState_CLUSTER_STATE_ACTIVE) })
	}
	time.Sleep(10 * time.Second)
	for _, c := range n.w.clusters {
		n.w.invariants.allow(c.name, false)
	}
}

// churn changes an endpoint a few times.
func (n *nemesis) churn() {
	e := pick(n.r, pick(n.r, n.w.clusters).endpoints[:2])
	if !e.up() {
		return
	}
	n.tell("%s of %s changes", e.request.GetName(), e.c.name)
	for range 1 + n.r.IntN(5) {
		e.change(nil)
		time.Sleep(time.Duration(n.r.Int64N(int64(50 * time.Millisecond))))
	}
}

// comeAndGo ends the second endpoint of a cluster, or brings it back. The first never goes, so no cluster may
// vanish.
func (n *nemesis) comeAndGo() {
	e := pick(n.r, n.w.clusters).endpoints[1]
	switch {
	case !e.up():
		n.tell("%s of %s comes back", e.request.GetName(), e.c.name)
		e.start()
	case n.r.IntN(2) == 0:
		n.tell("%s of %s drains", e.request.GetName(), e.c.name)
		e.drain()
	default:
		n.tell("%s of %s dies", e.request.GetName(), e.c.name)
		e.crash()
	}
}

func (n *nemesis) killController() {
	c := pick(n.r, n.w.controllers)
	if !c.up() {
		return
	}
	n.tell("controller %s is killed", c.id)
	c.kill()
	n.later("controller "+c.id+" is killed", c.start)
}

func (n *nemesis) cutController() {
	a, others := pick(n.r, n.w.controllers), []string(nil)
	for _, b := range a.others() {
		if n.r.IntN(3) > 0 {
			others = append(others, b)
		}
	}
	way := n.r.IntN(3)
	what := fmt.Sprintf("%s is cut off from %v, way %d", a.id, others, way)
	n.tell("%s", what)
	for _, b := range others {
		switch way {
		case 0:
			n.w.network.Cut(a.id, b)
		case 1:
			n.w.network.CutOneWay(a.id, b)
		default:
			n.w.network.CutOneWay(b, a.id)
		}
	}
	n.later(what, func() {
		for _, b := range others {
			n.w.network.Heal(a.id, b)
		}
	})
}

func (n *nemesis) cutAgent() {
	c, from := pick(n.r, n.w.clusters), pick(n.r, [][]string{{"c1"}, {"c2"}, {"c3"}, {"c1", "c2"}, {"c1", "c2", "c3"}})
	what := fmt.Sprintf("agent of %s is cut off from %v", c.name, from)
	n.tell("%s", what)
	n.later(what, n.w.cut(c.host(), from...))
}

func (n *nemesis) killAgent() {
	c, lose := pick(n.r, n.w.clusters), n.r.IntN(3) == 0
	if !c.up() {
		return
	}
	what := fmt.Sprintf("agent of %s is killed, disk lost: %v", c.name, lose)
	n.tell("%s", what)
	c.kill()
	if lose {
		c.loseState()
	}
	n.later(what, c.start)
}

func (n *nemesis) restartAgent() {
	c := pick(n.r, n.w.clusters)
	if !c.up() {
		return
	}
	n.tell("agent of %s restarts", c.name)
	c.stop()
	c.start()
}

func (n *nemesis) cutSidecar() {
	k := pick(n.r, n.w.clients)
	from := pick(n.r, [][]string{{k.c.host()}, {"c1", "c2", "c3"}, {"c1"}, {k.c.host(), "c1", "c2", "c3"}})
	what := fmt.Sprintf("%s is cut off from %v", k.name, from)
	n.tell("%s", what)
	n.later(what, n.w.cut(k.name, from...))
}

// drain drains a cluster or activates it again. It may fail, and may take effect late: the cluster may leave
// assignments from now on.
func (n *nemesis) drain() {
	c := pick(n.r, n.w.clusters)
	state := pick(n.r, []pb.ClusterState{pb.ClusterState_CLUSTER_STATE_DRAINED, pb.ClusterState_CLUSTER_STATE_ACTIVE})
	n.tell("%s becomes %s", c.name, state)
	if err := n.w.setState(c.name, state); err != nil {
		n.tell("which failed: %v", err)
	}
}

// policies that change what every client is told, and take no cluster from anybody.
var policies = []struct{ kind, name, spec string }{
	{"DestinationRule", "catalog", "{host: catalog, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"},
	{"DestinationRule", "catalog", "{host: catalog, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}, loadBalancer: {localityLbSetting: {failover: [{from: eu, to: asia}]}}}}"},
	{"DestinationRule", "catalog", "{host: catalog, subsets: [{name: v1, labels: {version: v1}}]}"},
	{"VirtualService", "catalog", "{hosts: [catalog], http: [{route: [{destination: {host: catalog}}], timeout: 1s}]}"},
	{"VirtualService", "catalog", "{hosts: [catalog], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: catalog}}]}, {route: [{destination: {host: catalog}}], retries: {attempts: 0}}]}"},
	{"AuthorizationPolicy", "catalog", "{action: DENY, rules: [{to: [{operation: {paths: [/private]}}]}]}"},
}

// policy applies a policy, or withdraws it. It may fail.
func (n *nemesis) policy() {
	p := pick(n.r, policies)
	if n.r.IntN(3) == 0 {
		n.tell("%s %s is withdrawn: %v", p.kind, p.name, n.w.withdraw(p.kind, p.name))
		return
	}
	n.tell("%s %s becomes %s: %v", p.kind, p.name, p.spec, n.w.apply(p.kind, p.name, p.spec))
}

func (n *nemesis) delay() {
	d := time.Duration(n.r.Int64N(int64(100 * time.Millisecond)))
	n.tell("links take %s", d)
	n.w.network.SetDelay(d)
}
