package ingest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// raft orders commands without looking at guards. It answers at once, and the store shows a command when it is told to.
type raft struct {
	store *mesh.Store
	index uint64
	late  time.Duration // after the answer
	fails []error       // of the first proposals, which are not done
	calls int
}

func (r *raft) Propose(_ context.Context, c *pb.Command) (*pb.CommandResult, error) {
	if r.calls++; len(r.fails) >= r.calls {
		return nil, r.fails[r.calls-1]
	}
	r.index++
	result := &pb.CommandResult{Index: r.index}
	var d mesh.Delta
	for _, p := range c.GetParts() {
		for _, o := range p.GetUpserts() {
			object, err := meshpb.Decode(o)
			if err != nil {
				return nil, err
			}
			d.Upserts = append(d.Upserts, object)
		}
		result.Applied = append(result.Applied, true)
	}
	index := mesh.Revision(r.index)
	if r.late == 0 {
		r.store.Commit(index, d)
	} else {
		time.AfterFunc(r.late*time.Duration(r.index), func() { r.store.Commit(index, d) }) // in order
	}
	return result, nil
}

func west() *mesh.Cluster {
	return &mesh.Cluster{
		ID: "west", Region: "eu", TrustDomain: spiffeid.RequireTrustDomainFromString("west.mesh"), State: mesh.ClusterActive,
		Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
	}
}

func gateway(address string) *pb.Object {
	return &pb.Object{Kind: &pb.Object_Gateway{Gateway: &pb.Gateway{Cluster: "west", Name: "g", Network: "n1", Address: address, Port: 1}}}
}

// newSession is a session of west's agent, whose commands raft orders.
func newSession(t *testing.T, r *raft, change func(*Config)) *session {
	t.Helper()
	r.store = new(mesh.Store)
	r.index = 1
	r.store.Commit(1, mesh.Delta{Upserts: []mesh.Object{west()}})
	config := Config{
		Store: r.store, Proposer: r, Board: observe.NewBoard("a", observe.Place{}), Issuer: new(pki.Issuer),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&config)
	}
	i, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { i.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return &session{ingest: i, stream: new(told), ctx: ctx, cluster: "west"}
}

func (s *session) send(sequence uint64, upserts ...*pb.Object) error {
	return s.update(&pb.Update{Epoch: s.cursor.Epoch, Sequence: sequence, Upserts: upserts})
}

func (s *session) start(t *testing.T) *pb.Welcome {
	t.Helper()
	welcome, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	return welcome
}

// counted is the sum of a counter's series.
func counted(t *testing.T, i *Ingest, name string) (n float64) {
	t.Helper()
	families, err := i.config.Metrics.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// What the agent is told that the mesh has is as new as its epoch: an update of the session before may have come
// between, and this replica may not have heard of it yet.
func TestWelcomeIsNotOlderThanTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{late: 5 * time.Second}
		s := newSession(t, r, nil)
		r.Propose(t.Context(), &pb.Command{Parts: []*pb.CommandPart{{Upserts: []*pb.Object{gateway("10.1.0.1")}}}}) // the session before
		if welcome := s.start(t); len(welcome.GetHave()) != 1 {
			t.Errorf("the mesh is said to have %v", welcome.GetHave())
		}
	})
}

// An update that takes several attempts is counted and audited once.
func TestRefusalsAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{}
		s := newSession(t, r, nil)
		s.start(t)
		lost := errors.New("leader lost")
		r.fails, r.calls = []error{lost, lost, lost}, 0
		if err := s.send(1, gateway("10.1.0.1"), gateway("10.2.0.1")); err != nil {
			t.Fatal(err)
		}
		if n := counted(t, s.ingest, "periplus_ingest_rejected_total"); n != 1 {
			t.Errorf("%v rejections are counted", n)
		}
	})
}

// A wider registration admits what was refused, but an agent sends that again only in a new session.
func TestSessionEndsWhenTheRegistrationAdmitsOtherObjects(t *testing.T) {
	r := &raft{}
	s := newSession(t, r, nil)
	s.start(t)
	change := func(edit func(*mesh.Cluster)) {
		c := west()
		edit(c)
		r.index++
		r.store.Commit(mesh.Revision(r.index), mesh.Delta{Upserts: []mesh.Object{c}})
	}
	for _, edit := range []func(*mesh.Cluster){
		func(*mesh.Cluster) {}, func(c *mesh.Cluster) { c.State = mesh.ClusterDrained }, func(c *mesh.Cluster) { c.CredentialGeneration = 7 },
	} {
		if change(edit); s.outdated() != nil {
			t.Error("ended although it admits the same")
		}
	}
	for _, edit := range []func(*mesh.Cluster){
		func(c *mesh.Cluster) {
			c.Networks[0].CIDRs = append(c.Networks[0].CIDRs, netip.MustParsePrefix("10.2.0.0/16"))
		},
		func(c *mesh.Cluster) { c.Namespaces = []string{"shop"} },
	} {
		if change(edit); status.Code(s.outdated()) != codes.Aborted {
			t.Errorf("goes on although it admits other objects: %v", s.outdated())
		}
	}
}

// What is too large for a raft entry is refused, not tried for ever.
func TestLimitsOfASession(t *testing.T) {
	s := newSession(t, &raft{}, nil)
	s.start(t)
	big := gateway("10.1.0.1")
	big.GetGateway().Name = strings.Repeat("x", maxUpdateBytes)
	if err := s.send(1, big); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an update that is too large: %v", err)
	}
	if err := s.welcome(&pb.Hello{Instance: strings.Repeat("x", maxHelloBytes+1)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a name that is too long: %v", err)
	}
	if _, err := s.ingest.config.Board.Connect(observe.Session{Cluster: "west", Instance: "1"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, report := range []*pb.LoadReport{{Rows: make([]*pb.LoadRow, maxLoadRows+1)}, {Proxies: []*pb.ProxyState{{Id: strings.Repeat("x", maxLoadBytes)}}}} {
		if err := s.load(report); err != nil {
			t.Errorf("a load report that is too large ends the session: %v", err)
		}
	}
	if seen := s.ingest.config.Board.View(time.Now())["west"]; seen.Load != nil || counted(t, s.ingest, "periplus_ingest_load_reports_dropped_total") != 2 {
		t.Error("a load report that is too large is kept, or not counted")
	}
	if err := s.load(&pb.LoadReport{WindowMs: 1}); err != nil || s.ingest.config.Board.View(time.Now())["west"].Load == nil {
		t.Errorf("the next one: %v", err)
	}
}
