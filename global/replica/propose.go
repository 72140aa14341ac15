package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/replica/link"
)

// Errors of Propose.
var (
	// ErrNoLeader: no leader was found in time. Not done.
	ErrNoLeader = errors.New("no leader; nothing was changed, try again")
	// ErrUnknown: the leader was lost while it worked. Perhaps done: look before you try again.
	ErrUnknown = errors.New("leader lost before it answered; the change may or may not have been made")
	// ErrRefused: the command is malformed or too large. Not done.
	ErrRefused = errors.New("command refused; nothing was changed")
)

const (
	// MaxCommandBytes is the largest command that is accepted.
	MaxCommandBytes = 3 << 20 // a gRPC message is at most 4 MiB
	retryAfter      = 20 * time.Millisecond
	enqueueTimeout  = time.Second
	connectTimeout  = time.Second
	catchUpTimeout  = 2 * time.Second
	attemptTimeout  = 2 * time.Second // at one leader; then it is looked for again
)

// errNotLeader makes Propose look for the leader again. Not done.
var errNotLeader = errors.New("not the leader")

// errNobodyLeads is errNotLeader of which nobody knows why.
var errNobodyLeads = fmt.Errorf("%w: nobody leads", errNotLeader)

// Propose has the command ordered and applied once, from whatever replica it is called on and although leaders come
// and go meanwhile. On return without error it is durable, and the local store reflects it unless this replica lags
// by seconds. Result says which parts' guards held. What the command points to becomes part of the state: it must not be
// written afterwards. Errors: [ErrNoLeader], [ErrUnknown], [ErrRefused].
func (r *Replica) Propose(ctx context.Context, command *pb.Command) (*pb.CommandResult, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.ProposeTimeout)
	defer cancel()
	command = &pb.Command{Parts: command.GetParts(), Id: newID()}
	result, err := persist(ctx, func() (*pb.CommandResult, error) { return r.try(ctx, command) })
	if err != nil {
		return nil, fmt.Errorf("propose: %w", err)
	}
	r.catchUp(ctx, result.GetIndex())
	return result, nil
}

// persist tries again while the outcome is not certain. Once it is unknown what an attempt left behind, one that fails
// for certain says nothing of the one before.
func persist(ctx context.Context, try func() (*pb.CommandResult, error)) (*pb.CommandResult, error) {
	final, why := ErrNoLeader, errNobodyLeads // which follows what tells more
	for {
		result, err := try()
		switch {
		case err == nil:
			return result, nil
		case errors.Is(err, ErrUnknown):
			if final != ErrUnknown || !errors.Is(err, context.DeadlineExceeded) { // as a leader that cannot reach the others
				why = err
			}
			final = ErrUnknown
		case errors.Is(err, errNotLeader):
			if final != ErrUnknown && !errors.Is(err, errNobodyLeads) {
				why = err
			}
		case final == ErrUnknown:
			return nil, fmt.Errorf("%w (then: %v)", final, err)
		default:
			return nil, err
		}
		if !sleep(ctx, retryAfter) {
			if final == ErrUnknown {
				return nil, why
			}
			return nil, fmt.Errorf("%w (%w)", final, why)
		}
	}
}

func newID() []byte {
	id := make([]byte, 12)
	rand.Read(id) // never fails (crypto/rand)
	return id
}

// catchUp waits a little for the local store; lagging is not an error of the proposal.
func (r *Replica) catchUp(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	if r.fsm.waitApplied(ctx, index) != nil {
		r.config.Log.Warn("this replica lags behind the leader", "index", index, "applied", r.fsm.applied.Latest())
	}
}

func (r *Replica) try(ctx context.Context, command *pb.Command) (*pb.CommandResult, error) {
	node := r.node.Load()
	if node == nil {
		return nil, fmt.Errorf("%w: not started", errNotLeader)
	}
	if node.State() == raft.Leader {
		return r.proposeHere(ctx, command)
	}
	address, id := node.LeaderWithID()
	if id == "" || string(id) == r.config.ID {
		return nil, errNobodyLeads
	}
	client, err := r.dial(ctx, string(id), address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	result, err := client.Propose(ctx, &pb.ProposeRequest{Command: command})
	switch status.Code(err) {
	case codes.OK:
		return result, nil
	case codes.FailedPrecondition:
		return nil, fmt.Errorf("%w: %v", errNotLeader, err)
	case codes.InvalidArgument, codes.PermissionDenied, codes.ResourceExhausted, codes.Unimplemented:
		return nil, fmt.Errorf("%w: %v", ErrRefused, err)
	}
	if status.Code(err) == codes.DeadlineExceeded {
		return nil, fmt.Errorf("%w: %w at replica %q", ErrUnknown, context.DeadlineExceeded, id)
	}
	return nil, fmt.Errorf("%w: %v", ErrUnknown, err)
}

// dial connects to a replica by its raft address. Failure means that nothing was sent.
func (r *Replica) dial(ctx context.Context, id string, address raft.ServerAddress) (pb.PeerServiceClient, error) {
	target, err := ParseAddress(string(address))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := r.config.Peers.Connect(ctx, id, target.Mesh)
	if errors.Is(err, peer.ErrUnreachable) {
		return nil, fmt.Errorf("%w: %w", errNotLeader, err)
	}
	if err != nil {
		return nil, err
	}
	return pb.NewPeerServiceClient(conn), nil
}

// proposeHere proposes on this replica, which must lead. What is malformed does not reach the log.
func (r *Replica) proposeHere(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	checked, err := decodeCommand(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	data, err := checked.marshal()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(data) > MaxCommandBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrRefused, len(data), MaxCommandBytes)
	}
	node, layer := r.node.Load(), r.layer.Load()
	if layer.Silent() {
		return nil, fmt.Errorf("%w: %w", errNotLeader, link.ErrSilent)
	}
	forget := r.fsm.ready.add(data, checked)
	future := node.Apply(data, enqueueTimeout)
	answered := make(chan error, 1)
	go func() { // raft answers every future, at the latest when it stops
		answered <- future.Error()
		forget()
	}()
	select {
	case err := <-answered:
		return answer(future, err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
}

func answer(future raft.ApplyFuture, err error) (*pb.CommandResult, error) {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return nil, fmt.Errorf("%w: %w", errNotLeader, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	switch response := future.Response().(type) {
	case *pb.CommandResult:
		return response, nil
	case error:
		return nil, fmt.Errorf("%w: %w", ErrRefused, response)
	}
	panic(fmt.Sprintf("replica: FSM answered with %T", future.Response()))
}
