package replica

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/periplus-mesh/periplus/global/replica/link"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// T8: who was removed gets no connection of raft's, at once and by whomever it is dialled, and cannot come back by itself,
// nor by an operator under the same name.
func TestRemovedReplicaIsRefused(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, nil)
	}
	for _, n := range p.nodes {
		<-n.store.Ready()
	}
	gone := p.leader() // the hardest case: it must hand over first
	rest := p.nodes[p.follower()]
	if err := rest.Leave(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := <-p.nodes[gone].ended; !errors.Is(err, ErrRemoved) {
		t.Errorf("the removed one ended with %v", err)
	}
	removed := p.nodes[gone]
	delete(p.nodes, gone)
	removed.ended <- nil
	removed.stop()
	eventually(t, "everybody knows", func() bool {
		for _, n := range p.nodes {
			if latest(n.store).RemovedReplica(gone) == nil {
				return false
			}
		}
		return true
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	config := removed.config
	config.Store = new(mesh.Store)
	outside := link.New(ctx, config.link())
	for id := range p.nodes {
		conn, err := outside.Dial(raft.ServerAddress(p.members[id].Address.String()), time.Second)
		if err == nil { // in TLS 1.3 the client learns of the refusal when it reads
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = conn.Read(make([]byte, 1))
		}
		if err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("replica %s speaks raft with it: %v", id, err)
		}
		if slices.Contains(p.nodes[id].layer.Load().Peers(), gone) {
			t.Errorf("replica %s keeps a connection with it", id)
		}
	}
	if err := rest.Join(t.Context(), p.members[gone]); !errors.Is(err, ErrRefused) {
		t.Errorf("an operator lets it in under the same name: %v", err)
	}
	again := p.start(gone, func(c *Config) {
		c.Bootstrap, c.DataDir, c.Join = false, t.TempDir(), p.members[rest.config.ID].Address.Mesh
	})
	if err := <-again.ended; err == nil || !strings.Contains(err.Error(), "removed for good") {
		t.Errorf("it joins by itself: %v", err)
	}
	again.ended <- nil
	again.stop()
	delete(p.nodes, gone)
	p.write(p.follower(), 1)
}

// Who asked is often gone before the removal is done: it was asked to leave, and did.
func TestRemovalIsFinishedWhenWhoAskedIsGone(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, nil)
	}
	for _, n := range p.nodes {
		<-n.store.Ready()
	}
	gone, leader := p.follower(), p.nodes[p.leader()]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := leader.leaveHere(ctx, gone); err != nil || leader.member(gone) || latest(leader.store).RemovedReplica(gone) == nil {
		t.Errorf("removed %v, still a member: %v", err, leader.member(gone))
	}
	if err := <-p.nodes[gone].ended; !errors.Is(err, ErrRemoved) {
		t.Errorf("it ended with %v", err)
	}
	p.nodes[gone].ended <- nil
	p.stop(gone)
}

// A member that joins again as it is keeps its place; one that says it is empty is taken for a stranger first.
func TestJoiningAgainChangesNothing(t *testing.T) {
	p := newPlane(t, "a", "b", "c")
	for id := range p.members {
		p.start(id, nil)
	}
	for _, n := range p.nodes {
		<-n.store.Ready()
	}
	follower := p.follower()
	p.write(follower, 0)
	before := p.nodes[follower].node.Load().LastIndex()
	if err := p.nodes[follower].Join(t.Context(), p.members[follower]); err != nil {
		t.Fatal(err)
	}
	p.write(follower, 1)
	if n := p.nodes[follower].node.Load().LastIndex() - before; n != 1 {
		t.Errorf("%d entries for a write and no change", n)
	}
}
