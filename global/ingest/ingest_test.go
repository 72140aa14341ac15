package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// slowRaft takes 10 ms for an entry and remembers how many parts each had.
type slowRaft struct {
	mu      sync.Mutex
	entries []int
	err     error
}

func (r *slowRaft) Propose(_ context.Context, c *pb.Command) (*pb.CommandResult, error) {
	time.Sleep(10 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, len(c.GetParts()))
	return &pb.CommandResult{Index: uint64(len(r.entries)), Applied: make([]bool, len(c.GetParts()))}, r.err
}

func TestALonePartLeavesAtOnceAndAStormIsMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raft := new(slowRaft)
		c := newCoalescer(raft, func(int) {})
		ctx, cancel := context.WithCancel(t.Context())
		go c.run(ctx)
		began := time.Now()
		if _, _, err := c.do(ctx, &pb.CommandPart{}); err != nil || time.Since(began) != 10*time.Millisecond {
			t.Errorf("alone: %v after %v", err, time.Since(began))
		}
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				if _, _, err := c.do(ctx, &pb.CommandPart{}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(raft.entries) != 3 || raft.entries[1]+raft.entries[2] != 100 {
			t.Errorf("entries %v, want the lone one and two for the storm", raft.entries)
		}
		raft.err = errors.New("no leader")
		if _, _, err := c.do(ctx, &pb.CommandPart{}); err == nil {
			t.Error("the proposal's error is lost")
		}
		cancel()
		synctest.Wait()
	})
}

func TestEntriesAreBounded(t *testing.T) {
	big := &submission{bytes: maxEntryBytes}
	small := &submission{bytes: 10}
	for i, test := range []struct {
		waiting []*submission
		want    int
	}{
		{[]*submission{big, small}, 1}, {[]*submission{small, small, big, small}, 2}, {[]*submission{small, small}, 2}, {[]*submission{{bytes: 2 * maxEntryBytes}}, 1},
	} {
		if got := len(fill(test.waiting)); got != test.want {
			t.Errorf("%d: %d parts, want %d", i, got, test.want)
		}
	}
}

func TestSpeedLimitMakesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		config := Config{ObjectsPerSecond: 2000, Burst: 20000}
		began := time.Now()
		for range 24 {
			if err := b.take(t.Context(), 1000, config, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began).Round(100 * time.Millisecond); took != 2*time.Second {
			t.Errorf("24 000 objects took %v, want 2 s", took)
		}
	})
}

func TestQuotas(t *testing.T) {
	u, c := newUsage(), Config{MaxEndpoints: 3, MaxServices: 1, MaxGateways: 1, MaxBytes: 1000}
	slice := func(name string, n int) *mesh.EndpointSlice {
		return &mesh.EndpointSlice{Service: mesh.ServiceName{Namespace: "shop", Name: "a"}, Cluster: "west", Slice: name, Endpoints: make([]mesh.Endpoint, n)}
	}
	service := func(name string, ports int) *mesh.Service {
		return &mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: name}, Cluster: "west", Ports: make([]mesh.ServicePort, ports)}
	}
	gateway := func(name string) *mesh.Gateway { return &mesh.Gateway{Cluster: "west", Name: name} }
	manyPorts := slice("a", 1)
	manyPorts.Endpoints[0].Ports = map[string]uint16{}
	for i := range uint16(maxPorts + 1) {
		manyPorts.Endpoints[0].Ports[fmt.Sprint("p", i)] = i + 1
	}
	u.set(slice("a", 2), 100)
	u.set(slice("a", 2), 100) // again, as when an attempt is repeated
	u.set(service("a", 1), 100)
	u.set(gateway("a"), 100)
	for _, test := range []struct {
		what    string
		object  mesh.Object
		bytes   int
		refused bool
	}{
		{"an endpoint more", slice("b", 1), 1, false}, {"a larger slice", slice("a", 3), 1, false}, {"endpoints beyond the quota", slice("b", 2), 1, true},
		{"the same service", service("a", 2), 1, false}, {"services beyond the quota", service("b", 1), 1, true},
		{"the same gateway", gateway("a"), 1, false}, {"gateways beyond the quota", gateway("b"), 1, true},
		{"as many bytes as there may be", slice("b", 1), 700, false}, {"bytes beyond the quota", slice("b", 1), 701, true}, {"a larger object", service("a", 1), 801, true},
		{"ports of a service", service("a", maxPorts+1), 1, true}, {"ports of an endpoint", manyPorts, 1, true},
	} {
		if r := u.exceeded(test.object, test.bytes, c); (r != nil) != test.refused || r != nil && r.Reason != Quota {
			t.Errorf("%s: %v", test.what, r)
		}
	}
	u.set(slice("a", 5), 5000) // as it may be found after a quota was lowered
	if r := u.exceeded(slice("a", 4), 4000, c); r != nil {
		t.Errorf("less than before, though still too much: %v", r)
	}
	u.remove(slice("a", 5).Key())
	u.remove(slice("none", 0).Key())
	if u.endpoints != 0 || u.bytes != 200 || u.kinds[mesh.KindEndpoints] != 0 {
		t.Errorf("after the removal: %+v", u)
	}
}

// Whatever an agent sends, an object that passes belongs to its cluster.
func FuzzCheck(f *testing.F) {
	west := &mesh.Cluster{
		ID: "west", Region: "eu", TrustDomain: spiffeid.RequireTrustDomainFromString("west.mesh"), Namespaces: []string{"shop"},
		Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}}, State: mesh.ClusterActive,
	}
	for _, o := range []*pb.Object{
		{}, {Kind: &pb.Object_Cluster{Cluster: meshpb.EncodeCluster(west)}},
		{Kind: &pb.Object_Gateway{Gateway: &pb.Gateway{Cluster: "west", Name: "g", Network: "n1", Address: "10.1.0.1", Port: 1}}},
		{Kind: &pb.Object_Federation{Federation: &pb.Federation{TrustDomain: "west.mesh", Cluster: "west", Bundle: []byte("{}"), Chain: [][]byte{{1}}}}},
	} {
		data, _ := proto.Marshal(o)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		object, err := meshpb.Unmarshal(data)
		if err != nil || Check(west, object, nil, time.Unix(1_800_000_000, 0)) != nil {
			return
		}
		if f, ok := object.(*mesh.Federation); ok && f.TrustDomain == west.TrustDomain {
			return
		}
		if id, ok := object.Key().Cluster(); !ok || id != west.ID {
			t.Fatalf("%s passed", object.Key())
		}
	})
}

// told keeps what a session sends.
type told struct {
	Stream
	members [][]string
}

func (s *told) Send(r *pb.ReportResponse) error {
	s.members = append(s.members, r.GetWelcome().GetControllers())
	return nil
}

// An agent is told of the replicas when they change, and only then.
func TestMembersAreToldWhenTheyChange(t *testing.T) {
	members := []string{"c1:1"}
	stream := new(told)
	s := &session{ingest: &Ingest{config: Config{Controllers: func() []string { return members }}}, stream: stream, members: members}
	for _, now := range [][]string{{"c1:1"}, {"c1:1", "c2:1"}, {"c1:1", "c2:1"}, {"c2:1"}} {
		members = now
		if err := s.tellMembers(); err != nil {
			t.Fatal(err)
		}
	}
	if want := [][]string{{"c1:1", "c2:1"}, {"c2:1"}}; !slices.EqualFunc(stream.members, want, slices.Equal[[]string]) {
		t.Errorf("told %v, want %v", stream.members, want)
	}
}
