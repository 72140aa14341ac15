package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/global/pki"
)

func (p *plane) write(id string, n int) {
	p.t.Helper()
	result, err := p.nodes[id].Propose(context.Background(), put(gateway("a", fmt.Sprintf("g%d", n), n+1)))
	if err != nil || len(result.GetApplied()) != 1 || !result.GetApplied()[0] {
		p.t.Fatalf("write %d at %s: %v, %v", n, id, result, err)
	}
}

func (p *plane) agree() {
	p.t.Helper()
	eventually(p.t, "equal states", func() bool {
		states := make(map[string]bool)
		for _, n := range p.nodes {
			states[digest(latest(n.store))] = true
		}
		return len(states) == 1
	})
}

func TestWritesReachTheLeaderFromAnywhereAndSurviveIt(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, nil)
	}
	follower := p.follower()
	p.write(follower, 0)
	if latest(p.nodes[follower].store).Len() != 1 {
		t.Error("the follower does not see its own write")
	}
	old := p.leader()
	p.nodes[old].kill() // it hands nothing over
	start := time.Now()
	for id := range p.nodes {
		if id != old {
			p.write(id, 1)
			break
		}
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the write after the leader's loss took %v", took)
	} else {
		t.Logf("first write after the leader's loss: %v", took)
	}
	p.stop(old)
	p.start(old, nil)
	for _, n := range p.nodes {
		<-n.store.Ready()
	}
	p.write(old, 2)
	p.agree()
	if n := latest(p.nodes[old].store).Len(); n != 3 {
		t.Errorf("%d objects after the return, want 3", n)
	}
}

func TestRestartOfAllKeepsWhatWasAcknowledged(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, nil)
	}
	for i := range 20 {
		p.write("a", i)
	}
	p.agree()
	before := digest(latest(p.nodes["a"].store))
	for id := range p.members {
		p.stop(id)
	}
	for id := range p.members {
		p.start(id, func(c *Config) { c.Bootstrap = false })
	}
	for _, n := range p.nodes {
		<-n.store.Ready()
		if digest(latest(n.store)) != before {
			t.Error("ready with another state than before the restart")
		}
	}
}

func TestJoinBySnapshotAndLeave(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, func(c *Config) { c.TrailingEntries = 5 })
	}
	for i := range 50 {
		p.write("a", i)
	}
	for _, n := range p.nodes {
		if err := n.node.Load().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}
	if err := pki.AddReplica(p.pki(), "d"); err != nil {
		t.Fatal(err)
	}
	p.reserve("d")
	d := p.start("d", func(c *Config) { c.Bootstrap, c.Join = false, p.members[p.follower()].Address.Mesh })
	<-d.store.Ready()
	if n := latest(d.store).Len(); n != 50 {
		t.Fatalf("the new replica is ready with %d of 50 objects", n)
	}
	p.write("d", 50)
	leader := p.leader()
	if err := p.nodes["d"].Leave(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	if err := p.nodes[leader].stop(); err != nil && !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
	delete(p.nodes, leader)
	p.write(p.follower(), 51)
	if leader != "d" {
		eventually(t, "replica d knows three members", func() bool { return len(p.nodes["d"].Members()) == 3 })
	}
	p.agree()
}

func TestForeignControllerIsRefused(t *testing.T) {
	p := newPlane(t, "a")
	p.start("a", nil)
	p.leader()
	foreign := newPlane(t, "x")
	x := foreign.start("x", func(c *Config) {
		c.Bootstrap, c.Join, c.ProposeTimeout = false, p.members["a"].Address.Mesh, time.Second
	})
	if err := x.askToJoin(t.Context()); err == nil {
		t.Error("a controller of another root could join")
	}
	if n := len(p.nodes["a"].Members()); n != 1 {
		t.Errorf("%d members", n)
	}
}

// Whoever would wait longer, as a client that sent its own deadline along, is told why in time.
func TestNoLeaderIsNotDone(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	n := p.start("a", func(c *Config) { c.ProposeTimeout = 300 * time.Millisecond })
	for _, patience := range []time.Duration{100 * time.Millisecond, time.Minute} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := n.Propose(ctx, put(gateway("a", "g", 1))); !errors.Is(err, ErrNoLeader) || patience == time.Minute && ctx.Err() != nil {
			t.Errorf("got %v after %v", err, patience)
		}
	}
	select {
	case <-n.store.Ready():
		t.Error("ready without a leader")
	default:
	}
}

// A disk that hangs, simulated by what the log tells of its writes.
func TestLeaderWithHungDiskFallsSilent(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, func(c *Config) { c.HandOverAfter, c.ExitAfter = 300*time.Millisecond, time.Hour })
	}
	for _, n := range p.nodes {
		<-n.store.Ready()
	}
	old := p.leader()
	hung := p.nodes[old]
	hung.hangs.Store(true)
	eventually(t, "another leader", func() bool {
		for id, n := range p.nodes {
			if id != old && n.Leader() != old && n.Leader() != "" {
				return true
			}
		}
		return false
	})
	hung.hangs.Store(false)
	p.write(old, 0)
	p.agree()
}

func TestHungDiskEndsTheProcessInTheEnd(t *testing.T) {
	p := newPlane(t, "a")
	n := p.start("a", func(c *Config) { c.HandOverAfter, c.ExitAfter = 50*time.Millisecond, 200*time.Millisecond })
	<-n.store.Ready()
	n.hangs.Store(true)
	delete(p.nodes, "a")
	err := <-n.ended
	if !errors.Is(err, ErrDisk) {
		t.Errorf("ended with %v", err)
	}
	n.ended <- nil // what the process's end would do
	n.hangs.Store(false)
	n.stop()
	if err := errors.Join(n.node.Load().Shutdown().Error(), n.log.Close()); err != nil {
		t.Error(err)
	}
}
