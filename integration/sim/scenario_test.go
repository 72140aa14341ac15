package sim

import (
	"fmt"
	"testing"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// changes changes one endpoint in each cluster, and waits until everybody who is reached knows.
func changes(limit time.Duration) func(w *world) {
	return func(w *world) {
		for _, c := range w.clusters {
			e := c.endpoints[0]
			e.change(nil)
			for _, k := range w.clients {
				w.until(fmt.Sprintf("%s knows of %s", k.name, c.name), limit, k.sees(e))
			}
		}
	}
}

func wait(d time.Duration) step {
	return step{"time passes", func(*world) { time.Sleep(d) }}
}

func everyClient(w *world, name string, holds func(k *client) error) {
	for _, k := range w.clients {
		if err := holds(k); err != nil {
			w.errorf("%s: %v", name, err)
		}
	}
}

// has tells whether the client's assignment has at least n addresses of each of the clusters.
func has(n int, clusters ...string) func(k *client) error {
	return func(k *client) error {
		count := map[string]int{}
		for _, a := range k.catalog() {
			count[a.cluster]++
		}
		for _, name := range clusters {
			if count[name] < n {
				return fmt.Errorf("%s has %s", k.name, texts(k.catalog()))
			}
		}
		return nil
	}
}

// N1: an endpoint change is known everywhere at once.
func TestEndpointChangeConverges(t *testing.T) {
	play(t,
		step{"endpoints change", changes(2 * time.Second)},
		step{"links become slow", func(w *world) { w.network.SetDelay(40 * time.Millisecond) }},
		step{"endpoints change over slow links", changes(5 * time.Second)},
		step{"an endpoint drains", func(w *world) { w.cluster("east").endpoints[1].drain() }},
		step{"an endpoint dies", func(w *world) { w.cluster("south").endpoints[1].crash() }},
		wait(20*time.Second),
	)
}

// A policy that is applied, changed and withdrawn is known everywhere, also to agents that were away meanwhile.
func TestPolicyConverges(t *testing.T) {
	all := func(w *world, where string) {
		for _, p := range policies {
			w.must(w.apply(p.kind, p.name, p.spec))
			w.until("everybody knows "+p.spec+" "+where, 10*time.Second, func() error { return w.clientsAgree() })
		}
	}
	play(t,
		step{"policies change", func(w *world) { all(w, "at rest") }},
		step{"an agent is away", func(w *world) { w.cluster("west").kill() }},
		step{"policies change again", func(w *world) {
			w.must(w.withdraw("AuthorizationPolicy", "catalog"))
			w.must(w.apply("VirtualService", "catalog", "{hosts: [catalog], http: [{route: [{destination: {host: catalog}}], timeout: 2s}]}"))
		}},
		step{"it comes back", func(w *world) { w.cluster("west").start() }},
		wait(40*time.Second),
		step{"the rest is withdrawn", func(w *world) {
			w.must(w.withdraw("DestinationRule", "catalog"))
			w.must(w.withdraw("VirtualService", "catalog"))
			w.until("everybody knows", 10*time.Second, func() error { return w.clientsAgree() })
		}},
		step{"writes go on", changes(5 * time.Second)},
	)
}

// F1: the leader is killed under writes.
func TestF1LeaderKilled(t *testing.T) {
	var leader *controller
	play(t,
		step{"the leader is killed", func(w *world) {
			leader = w.leader()
			leader.kill()
		}},
		step{"writes go on", changes(15 * time.Second)},
		step{"it comes back", func(w *world) { leader.start() }},
		step{"the next leader is killed", func(w *world) { w.leader().kill() }},
		step{"writes go on again", changes(15 * time.Second)},
	)
}

// F3: the leader is cut off from the other controllers, and from nobody else.
func TestF3MinorityPartitionWithLeader(t *testing.T) {
	var leader *controller
	var heal func()
	play(t,
		step{"the leader is cut off", func(w *world) {
			leader = w.leader()
			heal = w.cut(leader.id, leader.others()...)
		}},
		wait(5*time.Second),
		step{"it goes on serving what it knows", func(w *world) {
			for _, k := range w.clients {
				if k.target() == leader.id && has(1, "west", "east", "south")(k) != nil {
					w.errorf("%s lost its endpoints", k.name)
				}
			}
		}},
		step{"it accepts no write", func(w *world) {
			before := leader.snapshot().Revision()
			w.cluster("west").endpoints[0].change(nil)
			time.Sleep(5 * time.Second)
			if leader.snapshot().Revision() != before {
				w.errorf("the minority wrote revision %d after %d", leader.snapshot().Revision(), before)
			}
		}},
		step{"agents find the majority", func(w *world) {
			majority := w.controller(leader.others()[0])
			for _, c := range w.clusters {
				c.endpoints[0].change(nil)
				w.until(c.name+" reports", time.Minute, func() error { return c.announced(majority.snapshot()) })
			}
		}},
		step{"the partition heals", func(w *world) { heal() }},
		step{"everybody catches up", changes(10 * time.Second)},
	)
}

// F2: what an agent told a controller that was cut off arrives late, after the agent told another one newer things:
// it is not applied.
func TestF2LateReportIsRefused(t *testing.T) {
	late := func(c *controller) {
		w := c.w
		west := w.cluster("west")
		heal := w.cut(c.id, c.others()...)
		time.Sleep(time.Second)
		west.endpoints[0].change(nil)
		time.Sleep(200 * time.Millisecond) // the report is with c, if that is the agent's controller
		alone := w.cut(west.host(), c.id)
		time.Sleep(18 * time.Second) // the agent finds another one
		west.endpoints[0].change(nil)
		other := w.controller(c.others()[0])
		w.until("the newer is known", time.Minute, func() error { return west.announced(other.snapshot()) })
		heal()
		time.Sleep(10 * time.Second)
		w.must(west.announced(c.snapshot()))
		alone()
	}
	play(t, step{"each controller has its turn", func(w *world) {
		for _, c := range w.controllers {
			late(c)
			time.Sleep(20 * time.Second)
		}
	}})
}

// F4: a controller hears the others and is not heard, and the other way round.
func TestF4OneWayPartition(t *testing.T) {
	oneWay := func(from, to func(w *world, leader *controller) []string) step {
		return step{"a one-way cut", func(w *world) {
			leader := w.leader()
			for _, a := range from(w, leader) {
				for _, b := range to(w, leader) {
					w.network.CutOneWay(a, b)
				}
			}
			time.Sleep(15 * time.Second)
			for _, other := range leader.others() {
				w.network.Heal(leader.id, other)
			}
			time.Sleep(5 * time.Second)
		}}
	}
	self := func(_ *world, leader *controller) []string { return []string{leader.id} }
	others := func(_ *world, leader *controller) []string { return leader.others() }
	play(t, oneWay(self, others), step{"writes go on", changes(15 * time.Second)}, oneWay(others, self), step{"and on", changes(15 * time.Second)})
}

// F5: no controller is left. Everybody keeps what he has, and a sidecar that starts now is configured by its agent.
func TestF5AllControllersDown(t *testing.T) {
	play(t,
		step{"all controllers are killed", func(w *world) {
			for _, c := range w.controllers {
				c.kill()
			}
		}},
		wait(time.Minute),
		step{"everybody keeps what he has", func(w *world) { everyClient(w, "kept", has(1, "west", "east", "south")) }},
		step{"a change is known inside its cluster", func(w *world) {
			e := w.cluster("west").endpoints[0]
			e.change(nil)
			w.until("the sidecar knows", 2*time.Second, w.clients[0].sees(e))
		}},
		step{"a new sidecar gets all from the agent", func(w *world) {
			k := w.cluster("west").sidecar("late")
			w.until("it has endpoints", 5*time.Second, func() error { return has(1, "west", "east", "south")(k) })
			w.until("from the agent", time.Second, k.uses("agent"))
		}},
		step{"an agent restarts without controllers", func(w *world) {
			w.cluster("west").kill()
			w.cluster("west").start()
			k := w.cluster("west").sidecar("later")
			w.until("a new sidecar has endpoints", 30*time.Second, func() error { return has(1, "west", "east", "south")(k) })
		}},
		step{"the controllers come back", func(w *world) {
			for _, c := range w.controllers {
				c.start()
			}
		}},
		wait(20*time.Second),
		step{"writes go on", changes(30 * time.Second)},
	)
}

// F10: an agent is killed, and comes back with what was on its disk: nothing is withdrawn, nothing is sent again.
func TestF10AgentKilled(t *testing.T) {
	play(t,
		wait(5*time.Second), // the disk has everything
		step{"an agent is killed", func(w *world) { w.cluster("west").kill() }},
		wait(40*time.Second),
		step{"its endpoints are kept", func(w *world) { everyClient(w, "kept", has(1, "west", "east", "south")) }},
		step{"its sidecar is served by a controller", func(w *world) {
			if k := w.clients[0]; k.target() == "agent" || k.target() == "" {
				w.errorf("%s is served by %q", k.name, k.target())
			}
		}},
		step{"it comes back", func(w *world) { w.cluster("west").start() }},
		wait(40*time.Second),
		step{"its sidecar returns", func(w *world) { w.until("return", time.Second, w.clients[0].uses("agent")) }},
		step{"writes go on", changes(5 * time.Second)},
	)
}

// F10: the same with an empty disk, which holds the credential only.
func TestF10AgentRestartsEmpty(t *testing.T) {
	play(t,
		step{"an agent is killed", func(w *world) { w.cluster("west").kill() }},
		step{"and loses its disk", func(w *world) { w.cluster("west").loseState() }},
		step{"one of its endpoints dies meanwhile", func(w *world) { w.cluster("west").endpoints[1].crash() }},
		step{"it comes back", func(w *world) { w.cluster("west").start() }},
		wait(10*time.Second),
		step{"nothing is withdrawn before the endpoints had their time", func(w *world) {
			n := 0
			for _, a := range w.cluster("east").catalogOf(w) {
				if a.cluster == "west" {
					n++
				}
			}
			if n != 2 {
				w.errorf("east has %d of west's 2 endpoints", n)
			}
		}},
		wait(40*time.Second),
		step{"writes go on", changes(5 * time.Second)},
	)
}

// F10: it is killed again before its endpoints have found it. What it saved meanwhile is not taken for all there is.
func TestF10AgentRestartsEmptyTwice(t *testing.T) {
	var heal func()
	play(t,
		step{"an agent loses its disk, and comes back without its endpoints", func(w *world) {
			west := w.cluster("west")
			west.kill()
			west.loseState()
			heal = w.cut(west.host(), "west-catalog-1", "west-catalog-2", "west-gw-1")
			west.start()
		}},
		wait(5*time.Second),
		step{"and is killed again", func(w *world) {
			w.cluster("west").kill()
			w.cluster("west").start()
		}},
		wait(10*time.Second),
		step{"nobody lost anything", func(w *world) { everyClient(w, "kept", has(1, "west", "east", "south")) }},
		step{"the endpoints find it", func(w *world) { heal() }},
		wait(40*time.Second),
		step{"writes go on", changes(5 * time.Second)},
	)
}

// catalogOf is what the cluster's first sidecar has.
func (c *cluster) catalogOf(w *world) []address {
	for _, k := range w.clients {
		if k.c == c && !k.direct {
			return k.catalog()
		}
	}
	return nil
}

// An endpoint whose stream is lost for less than the grace period is not withdrawn.
func TestLostAnnouncementKeepsEndpoints(t *testing.T) {
	play(t,
		step{"the endpoints of a cluster lose their agent for a moment", func(w *world) {
			heal := w.cut(w.cluster("west").host(), "west-catalog-1", "west-catalog-2", "west-gw-1")
			time.Sleep(12 * time.Second)
			everyClient(w, "kept", has(1, "west"))
			heal()
		}},
		wait(20*time.Second),
		step{"writes go on", changes(5 * time.Second)},
	)
}

// F13: a cluster loses its controllers, and nobody loses the cluster.
func TestF13ControlLinkCut(t *testing.T) {
	var heal func()
	before := map[*client]string{}
	play(t,
		step{"a cluster's agent is cut off from the controllers", func(w *world) {
			for _, k := range w.clients {
				before[k] = texts(k.catalog())
			}
			heal = w.cut(w.cluster("west").host(), "c1", "c2", "c3")
		}},
		wait(time.Minute),
		step{"assignments are as they were", func(w *world) {
			everyClient(w, "kept", func(k *client) error {
				if now := texts(k.catalog()); now != before[k] {
					return fmt.Errorf("%s had %s, has %s", k.name, before[k], now)
				}
				return nil
			})
		}},
		step{"a change inside is known inside", func(w *world) {
			e := w.cluster("west").endpoints[0]
			e.change(nil)
			w.until("the sidecar knows", 2*time.Second, w.clients[0].sees(e))
		}},
		step{"the link heals", func(w *world) { heal() }},
		wait(30*time.Second),
		step{"writes go on", changes(5 * time.Second)},
	)
}

// An agent that restarts has nothing to say that the controllers do not know, and is told nothing that it knows.
func TestAgentRestartSendsNothing(t *testing.T) {
	clients := map[*client]int{}
	play(t,
		wait(10*time.Second),
		step{"an agent restarts", func(w *world) {
			for _, k := range w.clients {
				clients[k] = k.count()
			}
			w.cluster("west").stop()
			w.cluster("west").start()
		}},
		wait(40*time.Second),
		step{"nothing was sent again", func(w *world) {
			c := w.cluster("west")
			if c.count("periplus_agent_report_connected") != 1 || c.count("periplus_ads_client_connected") != 1 {
				w.errorf("the agent is not connected")
			}
			if n := c.count("periplus_agent_report_objects_total"); n != 0 {
				w.errorf("the agent reported %v objects that were known", n)
			}
			if n := c.count("periplus_ads_client_resources_total"); n != 0 {
				w.errorf("the agent was sent %v objects that it knew", n)
			}
			for k, n := range clients {
				if k.count() != n {
					w.errorf("%s was sent %d resources that it had", k.name, k.count()-n)
				}
			}
		}},
	)
}

// Whatever replica a client changes to, it is sent nothing that it has.
func TestReconnectResendsNothing(t *testing.T) {
	before := map[*client]int{}
	play(t,
		wait(5*time.Second),
		step{"each controller goes and comes back in turn", func(w *world) {
			for _, k := range w.clients {
				before[k] = k.count()
			}
			for _, c := range w.controllers {
				c.kill()
				time.Sleep(20 * time.Second)
				c.start()
				time.Sleep(20 * time.Second)
			}
		}},
		step{"an agent goes and comes back", func(w *world) {
			w.cluster("west").stop()
			w.until("the sidecar finds a controller", 10*time.Second, func() error {
				if got := w.clients[0].target(); got == "agent" || got == "" {
					return fmt.Errorf("it uses %q", got)
				}
				return nil
			})
			time.Sleep(5 * time.Second)
			w.cluster("west").start()
			w.until("the sidecar returns", 30*time.Second, w.clients[0].uses("agent"))
			time.Sleep(5 * time.Second)
		}},
		step{"nothing was sent again", func(w *world) {
			for k, n := range before {
				if k.count() != n {
					w.errorf("%s was sent %d resources that it had", k.name, k.count()-n)
				}
			}
		}},
	)
}

func TestDrain(t *testing.T) {
	vanished := func(name string) func(k *client) error {
		return func(k *client) error {
			if has(1, name)(k) == nil {
				return fmt.Errorf("%s has %s", k.name, texts(k.catalog()))
			}
			return nil
		}
	}
	all := func(w *world, what string, holds func(k *client) error) {
		for _, k := range w.clients {
			w.until(what, 5*time.Second, func() error { return holds(k) })
		}
	}
	play(t,
		step{"a cluster is drained", func(w *world) {
			w.must(w.setState("east", pb.ClusterState_CLUSTER_STATE_DRAINED))
			all(w, "it is gone everywhere", vanished("east"))
		}},
		step{"its agent restarts, which changes nothing", func(w *world) {
			w.cluster("east").kill()
			w.cluster("east").start()
			time.Sleep(40 * time.Second)
			all(w, "it is still gone", vanished("east"))
		}},
		step{"it is active again", func(w *world) {
			w.must(w.setState("east", pb.ClusterState_CLUSTER_STATE_ACTIVE))
			all(w, "it is back everywhere", has(1, "east"))
			w.invariants.allow("east", false)
		}},
		step{"writes go on", changes(5 * time.Second)},
	)
}
