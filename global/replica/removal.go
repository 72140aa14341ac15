package replica

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica/link"
)

// forgottenAfter is the silence of leaders, in heartbeats, after which a replica asks whether it still belongs.
const forgottenAfter = 5

// watchRemoval returns [ErrRemoved] when this replica was removed. A leader that removes itself is told by raft. A
// follower is not: the leader just stops talking to it, as if the network were cut. So after some silence it asks
// the others, for it must not go on to serve a state that grows old.
func (r *Replica) watchRemoval(ctx context.Context, node *raft.Raft) error {
	heard := time.Now()
	for sleep(ctx, 250*time.Millisecond) {
		ended := node.State() == raft.Shutdown || r.config.removed(r.config.ID)
		if ctx.Err() != nil {
			return nil // Run ends the node itself, after ctx
		}
		if ended {
			return ErrRemoved
		}
		if last := node.LastContact(); last.After(heard) {
			heard = last
		}
		if node.State() == raft.Leader {
			heard = time.Now()
		}
		if time.Since(heard) > forgottenAfter*r.config.Timing.Heartbeat && r.forgotten(ctx) {
			return ErrRemoved
		}
	}
	return nil
}

// closeRemoved ends the connections of replicas as they are removed; they get no new ones.
func (r *Replica) closeRemoved(ctx context.Context, layer *link.Layer) error {
	for {
		_, changed := r.config.Store.Latest()
		layer.CloseRemoved()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// forgotten tells whether most of the other members do not know this replica any more. One alone may have missed
// that it joined.
func (r *Replica) forgotten(ctx context.Context) bool {
	others, strangers := 0, 0
	for _, m := range r.Members() {
		if m.ID == r.config.ID {
			continue
		}
		others++
		client, err := r.dial(ctx, m.ID, raft.ServerAddress(m.Address.String()))
		if err != nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, attemptTimeout)
		_, err = client.Propose(limited, &pb.ProposeRequest{Command: &pb.Command{Id: newID()}}) // changes nothing
		cancel()
		if status.Code(err) == codes.PermissionDenied {
			strangers++
		}
	}
	return strangers > others/2
}
