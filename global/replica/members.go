package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

const membershipTimeout = 10 * time.Second

// Members are the replicas in the newest configuration, by id. Empty before Run has started.
func (r *Replica) Members() []Member {
	node := r.node.Load()
	if node == nil {
		return nil
	}
	future := node.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	_, leader := node.LeaderWithID()
	var out []Member
	for _, s := range future.Configuration().Servers {
		address, err := ParseAddress(string(s.Address))
		if err != nil {
			r.config.Log.Error("raft configuration", "peer", string(s.ID), "err", err)
		}
		out = append(out, Member{ID: string(s.ID), Address: address, Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader})
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// member tells whether id is in the configuration.
func (r *Replica) member(id string) bool {
	return slices.ContainsFunc(r.Members(), func(m Member) bool { return m.ID == id })
}

// Leader is the id of the leader as this replica knows it; "" when it knows none.
func (r *Replica) Leader() string {
	if node := r.node.Load(); node != nil {
		_, id := node.LeaderWithID()
		return string(id)
	}
	return ""
}

// LeaderHeard is when this replica last heard from a leader; now if it leads, zero if it never did.
func (r *Replica) LeaderHeard() time.Time {
	node := r.node.Load()
	switch {
	case node == nil:
		return time.Time{}
	case node.State() == raft.Leader:
		return time.Now()
	}
	return node.LastContact()
}

// Applied is the index of the newest command that the local store reflects.
func (r *Replica) Applied() uint64 { return r.fsm.applied.Latest() }

// Join makes m a member, from whatever replica it is called on. A member that is the same already stays as it is; one of
// the same id that differs is removed first. [ErrRefused]: a replica of that id has left; names are not used again.
func (r *Replica) Join(ctx context.Context, m Member) error { return r.join(ctx, m, false) }

// join is Join. Empty tells that m has no data, whatever it was before.
func (r *Replica) join(ctx context.Context, m Member, empty bool) error {
	return r.atLeader(ctx, "join", func(ctx context.Context, leader pb.PeerServiceClient) error {
		if leader == nil {
			return r.joinHere(m, empty)
		}
		_, err := leader.Join(ctx, &pb.JoinRequest{Id: m.ID, Address: m.Address.String(), Voter: m.Voter, Empty: empty})
		return refusedThere(err)
	})
}

// Leave removes a member for good, from whatever replica it is called on: its certificates are refused from then on.
// Removing who is not there is no error. After another error the member may be refused but still count: call it again.
func (r *Replica) Leave(ctx context.Context, id string) error {
	return r.atLeader(ctx, "leave", func(ctx context.Context, leader pb.PeerServiceClient) error {
		if leader == nil {
			return r.leaveHere(ctx, id)
		}
		_, err := leader.Leave(ctx, &pb.LeaveRequest{Id: id})
		return refusedThere(err)
	})
}

// refusedThere makes the leader's refusal [ErrRefused].
func refusedThere(err error) error {
	if status.Code(err) == codes.InvalidArgument {
		return fmt.Errorf("%w: %s", ErrRefused, status.Convert(err).Message())
	}
	return err
}

// atLeader calls do with a client of the leader, or with nil if it is this replica, until it finds one. All that is
// done this way can be done twice.
func (r *Replica) atLeader(ctx context.Context, what string, do func(context.Context, pb.PeerServiceClient) error) error {
	if _, ok := ctx.Deadline(); !ok { // else whoever asks knows how long a new replica may take
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.config.ProposeTimeout)
		defer cancel()
	}
	for {
		err := r.tryAtLeader(ctx, do)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errNotLeader) && status.Code(err) != codes.FailedPrecondition && status.Code(err) != codes.Unavailable:
			return fmt.Errorf("%s: %w", what, err)
		case !sleep(ctx, retryAfter):
			return fmt.Errorf("%s: %w (%w)", what, ErrNoLeader, err)
		}
	}
}

func (r *Replica) tryAtLeader(ctx context.Context, do func(context.Context, pb.PeerServiceClient) error) error {
	node := r.node.Load()
	if node == nil {
		return errNotLeader
	}
	if node.State() == raft.Leader {
		return do(ctx, nil)
	}
	address, id := node.LeaderWithID()
	if id == "" || string(id) == r.config.ID {
		return errNotLeader
	}
	client, err := r.dial(ctx, string(id), address)
	if err != nil {
		return err
	}
	return do(ctx, client)
}

func (r *Replica) joinHere(m Member, empty bool) error {
	m.Leader = false
	if m.ID == "" {
		return fmt.Errorf("%w: member without id", ErrRefused)
	}
	if err := m.Address.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if r.config.removed(m.ID) {
		return fmt.Errorf("%w: replica %q was removed for good: give its successor another name", ErrRefused, m.ID)
	}
	node := r.node.Load()
	for _, known := range r.Members() {
		if known.Leader = false; known.ID != m.ID {
			continue
		}
		if known == m && !empty {
			return nil
		}
		// Known but empty, it has lost its votes: as a stranger it cannot break a promise.
		if err := membership(node.RemoveServer(raft.ServerID(m.ID), 0, membershipTimeout)); err != nil {
			return err
		}
	}
	add := node.AddNonvoter
	if m.Voter {
		add = node.AddVoter
	}
	if err := membership(add(raft.ServerID(m.ID), raft.ServerAddress(m.Address.String()), 0, membershipTimeout)); err != nil {
		return err
	}
	r.config.Log.Info("replica joined", "peer", m.ID, "address", m.Address.String(), "voter", m.Voter)
	return nil
}

func (r *Replica) leaveHere(ctx context.Context, id string) error {
	if !r.member(id) { // in the newest configuration; what is ordered after it says that it is agreed on
		_, err := r.Propose(ctx, &pb.Command{})
		return err
	}
	if id == r.config.ID { // who leads next removes this one
		if err := membership(r.node.Load().LeadershipTransfer()); err != nil {
			return err
		}
		return errNotLeader
	}
	// Who asks may be the one that is removed, and ends as soon as it learns of it: what has begun is finished.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), membershipTimeout)
	defer cancel()
	gone := meshpb.Encode(&mesh.RemovedReplica{ID: id, RemovedAtMillis: time.Now().UnixMilli()})
	if _, err := r.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{{Upserts: []*pb.Object{gone}}}}); err != nil {
		return err
	}
	if err := membership(r.node.Load().RemoveServer(raft.ServerID(id), 0, membershipTimeout)); err != nil {
		return err
	}
	r.config.Log.Info("replica left", "peer", id)
	return nil
}

func membership(future raft.Future) error {
	err := future.Error()
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return fmt.Errorf("%w: %w", errNotLeader, err)
	}
	return err
}

// askToJoin asks the replica at Config.Join to make this one a voter.
func (r *Replica) askToJoin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, membershipTimeout)
	defer cancel()
	conn, err := r.config.Peers.Connect(ctx, "", r.config.Join)
	if err != nil {
		return err
	}
	_, err = pb.NewPeerServiceClient(conn).Join(ctx, &pb.JoinRequest{Id: r.config.ID, Address: r.config.Address.String(), Voter: true, Empty: true})
	return err
}
