package policies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/policy"
)

// Operations of a revision.
const (
	apply  = "apply"
	remove = "delete"
)

// attempts to commit against other writers before giving up.
const attempts = 10

// What one answer holds of the history: entries by default and at most, and the bytes of documents after which it ends.
const (
	defaultHistory  = 100
	maxHistory      = 500
	maxHistoryBytes = 8 << 20
)

// State is the replica's view of the mesh.
type State interface {
	Latest() (*mesh.Snapshot, <-chan struct{})
}

// Proposer orders a command. An error may leave it done or not; every command here may be proposed again.
type Proposer interface {
	Propose(context.Context, *pb.Command) (*pb.CommandResult, error)
}

// Config of the service. All fields are needed.
type Config struct {
	State    State
	Proposer Proposer
	// Author names the operator of a call from its verified certificate, or refuses it.
	Author func(context.Context) (string, error)
	Log    *slog.Logger
}

// Service implements periplus.v1.PolicyService.
type Service struct{ c Config }

// New makes the service.
func New(c Config) *Service { return &Service{c} }

// errConflict says that somebody else committed first.
var errConflict = errors.New("somebody else changed the policies at the same time")

// ApplyPolicy applies every document of the request, or none.
func (s *Service) ApplyPolicy(ctx context.Context, r *connect.Request[pb.ApplyPolicyRequest]) (*connect.Response[pb.ApplyPolicyResponse], error) {
	author, err := s.c.Author(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	file := r.Msg.GetFile()
	if file == "" || file == "-" {
		file = "<stdin>"
	}
	parsed, err := policy.Parse(file, r.Msg.GetDocuments())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	var change *change
	err = s.commit(ctx, r.Msg.GetDryRun(), func(snapshot *mesh.Snapshot) (*pb.CommandPart, error) {
		change, err = s.applied(snapshot, author, parsed)
		return change.part, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ApplyPolicyResponse{Items: change.items}), nil
}

// change collects one command.
type change struct {
	snapshot *mesh.Snapshot
	author   string
	at       time.Time
	last     *mesh.PolicyRevision
	part     *pb.CommandPart
	items    []*pb.AppliedPolicy
}

func newChange(s *mesh.Snapshot, author string) *change {
	c := &change{snapshot: s, author: author, at: time.Now(), last: head(s), part: new(pb.CommandPart)}
	// The next number must be free: of two writers, one wins and the other computes anew.
	c.guard(mesh.PolicyRevisionKey(c.last.Revision + 1))
	return c
}

func (c *change) guard(key mesh.Key) {
	guard := &pb.KeyGuard{Key: string(key)}
	if object, ok := c.snapshot.Get(key); ok {
		digest := meshpb.Digest(object)
		guard.Digest = digest[:]
	}
	c.part.Guards = append(c.part.Guards, &pb.Guard{Guard: &pb.Guard_Key{Key: guard}})
}

func (c *change) revise(p *mesh.Policy, operation string) {
	r := &mesh.PolicyRevision{
		Revision: c.last.Revision + 1, Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Operation: operation,
		Author: c.author, AtMillis: c.at.UnixMilli(), Digest: p.Digest, Source: p.Source,
	}
	r.Chain = link(c.last.Chain, r)
	c.last = r
	c.part.Upserts = append(c.part.Upserts, meshpb.Encode(r))
	c.guard(p.Key())
}

func (s *Service) applied(snapshot *mesh.Snapshot, author string, parsed []policy.Parsed) (*change, error) {
	c := newChange(snapshot, author)
	for _, p := range parsed {
		next := &mesh.Policy{
			Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Clusters: p.Clusters, Author: author,
			Digest: digest(p.Source), Source: p.Source, Spec: p.Spec,
		}
		if err := s.admit(snapshot, next); err != nil {
			return c, connect.NewError(connect.CodeInvalidArgument, err)
		}
		c.items = append(c.items, c.apply(next))
	}
	return c, nil
}

// admit checks what only the state can tell.
func (s *Service) admit(snapshot *mesh.Snapshot, p *mesh.Policy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	for _, id := range p.Clusters {
		if snapshot.Cluster(id) == nil {
			return fmt.Errorf("%s %s/%s: annotation %s: cluster %q is not registered", p.Kind, p.Namespace, p.Name, policy.ScopeAnnotation, id)
		}
	}
	return nil
}

func (c *change) apply(next *mesh.Policy) *pb.AppliedPolicy {
	out := &pb.AppliedPolicy{Kind: string(next.Kind), Namespace: next.Namespace, Name: next.Name, Digest: next.Digest, Outcome: "created"}
	if object, ok := c.snapshot.Get(next.Key()); ok {
		old := object.(*mesh.Policy)
		if out.Outcome = "configured"; old.Digest == next.Digest {
			out.Outcome, out.Revision = "unchanged", old.Revision
			return out
		}
	}
	c.revise(next, apply)
	next.Revision = c.last.Revision
	c.part.Upserts = append(c.part.Upserts, meshpb.Encode(next))
	out.Revision = next.Revision
	return out
}

// DeletePolicy deletes one policy; the history keeps it.
func (s *Service) DeletePolicy(ctx context.Context, r *connect.Request[pb.DeletePolicyRequest]) (*connect.Response[pb.DeletePolicyResponse], error) {
	author, err := s.c.Author(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	kind, err := kindOf(r.Msg.GetKind())
	if err != nil {
		return nil, err
	}
	var c *change
	var missing error
	err = s.commit(ctx, false, func(snapshot *mesh.Snapshot) (*pb.CommandPart, error) {
		c, missing = newChange(snapshot, author), nil
		key := mesh.PolicyKey(kind, r.Msg.GetNamespace(), r.Msg.GetName())
		if object, ok := snapshot.Get(key); ok {
			c.revise(object.(*mesh.Policy), remove)
			c.part.Deletes = append(c.part.Deletes, string(key))
		} else {
			missing = connect.NewError(connect.CodeNotFound, fmt.Errorf("%s %s/%s does not exist", kind, r.Msg.GetNamespace(), r.Msg.GetName()))
		}
		return c.part, nil
	})
	if err == nil {
		err = missing
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.DeletePolicyResponse{Revision: c.last.Revision}), nil
}

// commit computes a part from the latest state and proposes it, again if the state moved under it. A part that changes
// nothing is proposed as well, for its guards: this replica may be behind, and "unchanged" must be so.
func (s *Service) commit(ctx context.Context, dryRun bool, compute func(*mesh.Snapshot) (*pb.CommandPart, error)) error {
	for range attempts {
		snapshot, next := s.c.State.Latest()
		part, err := compute(snapshot)
		if err != nil || dryRun {
			return err
		}
		result, err := s.c.Proposer.Propose(ctx, &pb.Command{Parts: []*pb.CommandPart{part}})
		if errors.Is(err, replica.ErrRefused) {
			return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("policy: %w; apply fewer documents at a time", err))
		}
		if err != nil {
			return connect.NewError(connect.CodeUnavailable, fmt.Errorf("policy: %w; apply it again", err))
		}
		if applied := result.GetApplied(); len(applied) == 1 && applied[0] {
			if len(part.GetUpserts()) > 0 {
				s.c.Log.Info("policies changed", "revision", result.GetIndex(), "objects", len(part.GetUpserts()))
			}
			return nil
		}
		select { // this replica may lag behind the winner
		case <-next:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
		}
	}
	return connect.NewError(connect.CodeAborted, fmt.Errorf("policy: %w; nothing was changed; apply it again", errConflict))
}

func kindOf(name string) (mesh.PolicyKind, error) {
	for _, k := range policy.Kinds() {
		if strings.EqualFold(k, name) || strings.EqualFold(k+"s", name) {
			return mesh.PolicyKind(k), nil
		}
	}
	return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("kind %q: want one of %s", name, strings.Join(policy.Kinds(), ", ")))
}

// GetPolicies lists the policies in force that match what is set of kind, namespace, name.
func (s *Service) GetPolicies(_ context.Context, r *connect.Request[pb.GetPoliciesRequest]) (*connect.Response[pb.GetPoliciesResponse], error) {
	matches, err := filter(r.Msg)
	if err != nil {
		return nil, err
	}
	snapshot, _ := s.c.State.Latest()
	out := new(pb.GetPoliciesResponse)
	for _, object := range snapshot.Scan(string(mesh.KindPolicy) + "/") {
		if p := object.(*mesh.Policy); matches(p.Kind, p.Namespace, p.Name) {
			out.Items = append(out.Items, meshpb.EncodePolicy(p))
		}
	}
	return connect.NewResponse(out), nil
}

// selector is what requests select policies by.
type selector interface {
	GetKind() string
	GetNamespace() string
	GetName() string
}

func filter(r selector) (func(mesh.PolicyKind, string, string) bool, error) {
	var kind mesh.PolicyKind
	if r.GetKind() != "" {
		var err error
		if kind, err = kindOf(r.GetKind()); err != nil {
			return nil, err
		}
	}
	return func(k mesh.PolicyKind, namespace, name string) bool {
		return (kind == "" || k == kind) && (r.GetNamespace() == "" || namespace == r.GetNamespace()) && (r.GetName() == "" || name == r.GetName())
	}, nil
}

// PolicyHistory lists revisions, newest first.
func (s *Service) PolicyHistory(_ context.Context, r *connect.Request[pb.PolicyHistoryRequest]) (*connect.Response[pb.PolicyHistoryResponse], error) {
	matches, err := filter(r.Msg)
	if err != nil {
		return nil, err
	}
	limit := min(int(r.Msg.GetLimit()), maxHistory)
	if limit == 0 {
		limit = defaultHistory
	}
	snapshot, _ := s.c.State.Latest()
	out, bytes := new(pb.PolicyHistoryResponse), 0
	for number := head(snapshot).Revision; number > 0 && len(out.Items) < limit && bytes < maxHistoryBytes; number-- {
		object, _ := snapshot.Get(mesh.PolicyRevisionKey(number))
		revision, ok := object.(*mesh.PolicyRevision)
		if ok && matches(revision.Kind, revision.Namespace, revision.Name) {
			out.Items = append(out.Items, meshpb.EncodePolicyRevision(revision))
			bytes += len(revision.Source)
		}
	}
	return connect.NewResponse(out), nil
}
