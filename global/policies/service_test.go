package policies

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// log is an ordered state without raft: guards and commits as the FSM does them.
type log struct {
	mesh.Store
	mu    sync.Mutex
	index uint64
}

func (l *log) Propose(_ context.Context, c *pb.Command) (*pb.CommandResult, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	result := &pb.CommandResult{Index: l.index}
	for _, part := range c.GetParts() {
		ok := l.holds(part.GetGuards())
		if result.Applied = append(result.Applied, ok); !ok {
			continue
		}
		var d mesh.Delta
		for _, o := range part.GetUpserts() {
			object, err := meshpb.Decode(o)
			if err != nil {
				return nil, err
			}
			d.Upserts = append(d.Upserts, object)
		}
		for _, key := range part.GetDeletes() {
			d.Deletes = append(d.Deletes, mesh.Key(key))
		}
		l.Update(d)
	}
	return result, nil
}

func (l *log) holds(guards []*pb.Guard) bool {
	snapshot, _ := l.Latest()
	for _, g := range guards {
		want := ""
		if object, ok := snapshot.Get(mesh.Key(g.GetKey().GetKey())); ok {
			d := meshpb.Digest(object)
			want = string(d[:])
		}
		if want != string(g.GetKey().GetDigest()) {
			return false
		}
	}
	return true
}

func newService() (*Service, *log) {
	state := new(log)
	return New(Config{
		State: state, Proposer: state, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Author: func(context.Context) (string, error) { return "spiffe://periplus.global/operator/alice", nil },
	}), state
}

const rule = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %s, namespace: shop}
spec: {host: catalog, trafficPolicy: {loadBalancer: {simple: %s}}}
`

func apply1(t *testing.T, s *Service, documents string) (*pb.ApplyPolicyResponse, error) {
	t.Helper()
	response, err := s.ApplyPolicy(context.Background(), connect.NewRequest(&pb.ApplyPolicyRequest{Documents: []byte(documents), File: "rule.yaml"}))
	if err != nil {
		return nil, err
	}
	return response.Msg, nil
}

func TestApplyIsARevisionOnlyWhenItChanges(t *testing.T) {
	s, state := newService()
	for i, step := range []struct{ documents, outcome string }{
		{fmt.Sprintf(rule, "catalog", "RANDOM"), "created 1"},
		{fmt.Sprintf(rule, "catalog", "RANDOM"), "unchanged 1"},
		{fmt.Sprintf(rule, "catalog", "ROUND_ROBIN"), "configured 2"},
	} {
		response, err := apply1(t, s, step.documents)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(response.GetItems()[0].GetOutcome(), " ", response.GetItems()[0].GetRevision()); got != step.outcome {
			t.Errorf("step %d: got %q, want %q", i, got, step.outcome)
		}
	}
	snapshot, _ := state.Latest()
	if err := Verify(snapshot); err != nil {
		t.Error(err)
	}
	if p := snapshot.Policies(mesh.KindDestinationRule); p != nil {
		for policy := range p {
			if policy.Author != "spiffe://periplus.global/operator/alice" || policy.Revision != 2 {
				t.Errorf("policy in force: %+v", policy)
			}
		}
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	s, state := newService()
	_, err := apply1(t, s, fmt.Sprintf(rule, "good", "RANDOM")+"---\n"+fmt.Sprintf(rule, "bad", "SOMETIMES"))
	if err == nil || !strings.Contains(err.Error(), "rule.yaml:9") {
		t.Errorf("error %v does not name file and line", err)
	}
	if snapshot, _ := state.Latest(); snapshot.Len() != 0 {
		t.Errorf("%d objects were written", snapshot.Len())
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	s, state := newService()
	response, err := s.ApplyPolicy(context.Background(), connect.NewRequest(&pb.ApplyPolicyRequest{
		Documents: fmt.Appendf(nil, rule, "catalog", "RANDOM"), DryRun: true,
	}))
	if err != nil || response.Msg.GetItems()[0].GetOutcome() != "created" {
		t.Fatal(response, err)
	}
	if snapshot, _ := state.Latest(); snapshot.Len() != 0 {
		t.Errorf("%d objects were written", snapshot.Len())
	}
}

// Writers at the same time each get a revision of their own, and the chain holds.
func TestConcurrentWriters(t *testing.T) {
	s, state := newService()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, err := apply1(t, s, fmt.Sprintf(rule, fmt.Sprint("rule-", i), "RANDOM")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	snapshot, _ := state.Latest()
	if got := head(snapshot).Revision; got != 8 {
		t.Errorf("%d revisions, want 8", got)
	}
	if err := Verify(snapshot); err != nil {
		t.Error(err)
	}
}

func TestVerifyNamesTheAlteredRevision(t *testing.T) {
	s, state := newService()
	for _, lb := range []string{"RANDOM", "ROUND_ROBIN", "LEAST_REQUEST"} {
		if _, err := apply1(t, s, fmt.Sprintf(rule, "catalog", lb)); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, _ := state.Latest()
	object, _ := snapshot.Get(mesh.PolicyRevisionKey(2))
	altered := *object.(*mesh.PolicyRevision)
	altered.Author = "spiffe://periplus.global/operator/mallory"
	if err := Verify(state.Update(mesh.Delta{Upserts: []mesh.Object{&altered}})); err == nil || !strings.Contains(err.Error(), "revision 2") {
		t.Errorf("got %v, want revision 2 named", err)
	}
}

func TestDeleteAndHistory(t *testing.T) {
	s, _ := newService()
	ctx := context.Background()
	if _, err := apply1(t, s, fmt.Sprintf(rule, "catalog", "RANDOM")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeletePolicy(ctx, connect.NewRequest(&pb.DeletePolicyRequest{Kind: "destinationrule", Namespace: "shop", Name: "catalog"})); err != nil {
		t.Fatal(err)
	}
	_, err := s.DeletePolicy(ctx, connect.NewRequest(&pb.DeletePolicyRequest{Kind: "destinationrule", Namespace: "shop", Name: "catalog"}))
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("deleting twice: %v", err)
	}
	history, err := s.PolicyHistory(ctx, connect.NewRequest(&pb.PolicyHistoryRequest{}))
	if err != nil || len(history.Msg.GetItems()) != 2 || history.Msg.GetItems()[0].GetOperation() != remove {
		t.Errorf("history %v %v", history, err)
	}
}

// behind is a replica that knows an old state until it has proposed something.
type behind struct {
	*log
	old *mesh.Snapshot
}

func (b *behind) Latest() (*mesh.Snapshot, <-chan struct{}) {
	latest, next := b.log.Latest()
	if b.old != nil {
		return b.old, next
	}
	return latest, next
}

func (b *behind) Propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	b.old = nil
	return b.log.Propose(ctx, c)
}

// A replica that lags must not say "unchanged" or "does not exist" of what it has not heard of.
func TestReplicaThatLagsDoesNotAnswerFromItsOldState(t *testing.T) {
	s, state := newService()
	empty, _ := state.Latest()
	if _, err := apply1(t, s, fmt.Sprintf(rule, "catalog", "RANDOM")); err != nil {
		t.Fatal(err)
	}
	first, _ := state.Latest()
	if _, err := apply1(t, s, fmt.Sprintf(rule, "catalog", "ROUND_ROBIN")); err != nil {
		t.Fatal(err)
	}
	lagging := func(at *mesh.Snapshot) *Service {
		b := &behind{state, at}
		return New(Config{State: b, Proposer: b, Author: s.c.Author, Log: s.c.Log})
	}
	response, err := apply1(t, lagging(first), fmt.Sprintf(rule, "catalog", "RANDOM"))
	if err != nil || response.GetItems()[0].GetOutcome() != "configured" || response.GetItems()[0].GetRevision() != 3 {
		t.Errorf("applied what was in force once: %v, %v", response, err)
	}
	_, err = lagging(empty).DeletePolicy(t.Context(), connect.NewRequest(&pb.DeletePolicyRequest{Kind: "DestinationRule", Namespace: "shop", Name: "catalog"}))
	if err != nil {
		t.Errorf("deleted what the replica has not heard of: %v", err)
	}
}

// refusing is a log that finds every command too large.
type refusing struct{ *log }

func (refusing) Propose(context.Context, *pb.Command) (*pb.CommandResult, error) {
	return nil, fmt.Errorf("propose: %w", replica.ErrRefused)
}

// What can never be done is not answered with "try again".
func TestRefusedIsNotUnavailable(t *testing.T) {
	s, state := newService()
	s.c.Proposer = refusing{state}
	if _, err := apply1(t, s, fmt.Sprintf(rule, "catalog", "RANDOM")); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s, state := newService()
	var d mesh.Delta
	for i := range uint64(1000) {
		name := "small"
		if i >= 990 {
			name = "large"
		}
		d.Upserts = append(d.Upserts, &mesh.PolicyRevision{Revision: i + 1, Kind: mesh.KindDestinationRule, Namespace: "shop", Name: name, Source: make([]byte, 1<<20*(i/990))})
	}
	state.Update(d)
	for _, test := range []struct {
		name          string
		limit         uint32
		want, atFirst uint64
	}{{"", 1, 1, 1000}, {"", 1 << 31, maxHistoryBytes >> 20, 1000}, {"small", 0, defaultHistory, 990}, {"small", 5000, maxHistory, 990}, {"none", 0, 0, 0}} {
		history, err := s.PolicyHistory(t.Context(), connect.NewRequest(&pb.PolicyHistoryRequest{Name: test.name, Limit: test.limit}))
		if err != nil || uint64(len(history.Msg.GetItems())) != test.want || test.want > 0 && history.Msg.GetItems()[0].GetRevision() != test.atFirst {
			t.Errorf("name %q, limit %d: %d entries, %v", test.name, test.limit, len(history.Msg.GetItems()), err)
		}
	}
}
