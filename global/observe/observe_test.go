package observe

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func share(from, to *Board, now time.Time) {
	for _, o := range from.Observations(now, 7) {
		to.Receive(from.replica, o, now)
	}
}

func connect(t *testing.T, b *Board, s Session, now time.Time) Stream {
	t.Helper()
	stream, err := b.Connect(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestEveryReplicaKnowsEveryAgent(t *testing.T) {
	now := time.Now()
	a, b := NewBoard("a", Place{}), NewBoard("b", Place{})
	connect(t, a, Session{Cluster: "west", Instance: "1", AgentVersion: "v1"}, now)
	a.Load("west", &pb.LoadReport{WindowMs: 1000}, now)
	share(a, b, now.Add(time.Second))
	seen := b.View(now.Add(3 * time.Second))["west"]
	if !seen.Connected || seen.Replica != "a" || seen.Age != 3*time.Second || seen.AgentVersion != "v1" || seen.Load == nil {
		t.Errorf("b sees %+v", seen)
	}
	if seen := b.View(now.Add(time.Minute))["west"]; seen.Connected {
		t.Error("still connected although replica a is silent")
	}
	if age, applied, ok := b.Replica("a", now.Add(2*time.Second)); !ok || age != time.Second || applied != 7 {
		t.Errorf("replica a: %v, %d, %v", age, applied, ok)
	}
}

// F26: a second agent for the same cluster.
func TestSecondInstanceIsRefusedWhileTheFirstLives(t *testing.T) {
	now := time.Now()
	a, b := NewBoard("a", Place{}), NewBoard("b", Place{})
	first, second := Session{Cluster: "west", Instance: "1"}, Session{Cluster: "west", Instance: "2"}
	onA := connect(t, a, first, now)
	share(a, b, now)
	var duplicate *ErrDuplicate
	if _, err := a.Connect(second, now); !errors.As(err, &duplicate) {
		t.Errorf("same replica: %v", err)
	}
	if _, err := b.Connect(second, now); !errors.As(err, &duplicate) || duplicate.Replica != "a" {
		t.Errorf("other replica: %v", err)
	}
	onB := connect(t, b, first, now) // the same instance
	b.Disconnect(onB, now)
	a.Disconnect(onA, now)
	share(a, b, now)
	connect(t, b, second, now) // the first is gone
	b.Disconnect(onB, now)     // late news of a ghost
	if !b.View(now)["west"].Connected {
		t.Error("a ghost's end disconnected the living")
	}
}

// An agent that lost its stream comes back before the replica notices; then the old stream ends.
func TestEndOfAnOldStreamSaysNothingOfTheNewOne(t *testing.T) {
	now, b := time.Now(), NewBoard("a", Place{})
	session := Session{Cluster: "west", Instance: "1"}
	old := connect(t, b, session, now)
	living := connect(t, b, session, now)
	b.Disconnect(old, now)
	if !b.View(now)["west"].Connected {
		t.Error("the living stream counts as ended")
	}
	if _, err := b.Connect(Session{Cluster: "west", Instance: "2"}, now); err == nil {
		t.Error("a second instance is let in beside the first")
	}
	b.Disconnect(living, now)
	if b.View(now)["west"].Connected {
		t.Error("connected without a stream")
	}
}

// However large the load reports are, each message fits into what gRPC takes, and the other replica has all of them.
func TestLargeReportsAreSharedInSeveralMessages(t *testing.T) {
	now, a, b := time.Now(), NewBoard("a", Place{}), NewBoard("b", Place{})
	for i, megabytes := range []int{3, 1, 1, 2, 0} {
		id := mesh.ClusterID(fmt.Sprint("c", i))
		connect(t, a, Session{Cluster: id, Instance: "1"}, now)
		a.Load(id, &pb.LoadReport{WindowMs: uint32(i + 1), Proxies: []*pb.ProxyState{{Id: strings.Repeat("x", megabytes<<20)}}}, now)
	}
	messages := a.Observations(now, 7)
	for i, o := range messages {
		if size := proto.Size(o); size > 4<<20 || len(o.GetClusters()) != 5 {
			t.Errorf("message %d has %d bytes and %d clusters", i, size, len(o.GetClusters()))
		}
		b.Receive("a", o, now)
	}
	if len(messages) != 3 {
		t.Errorf("%d messages, want 3", len(messages))
	}
	for id, seen := range b.View(now) {
		if want := uint32(id[1]-'0') + 1; !seen.Connected || seen.Load.GetWindowMs() != want {
			t.Errorf("%s: connected %v, window %d, want %d", id, seen.Connected, seen.Load.GetWindowMs(), want)
		}
	}
}

func TestTraffic(t *testing.T) {
	counts := make([]uint64, latency.Buckets)
	counts[latency.Index(10*time.Millisecond)] = 100
	row := func(from, to string, requests, errors uint64) *pb.LoadRow {
		return &pb.LoadRow{
			Service: &pb.ServiceName{Namespace: "shop", Name: "catalog"}, SourceRegion: from, DestinationRegion: to,
			Requests: requests, Errors: errors, LatencyCounts: append(counts, 1, 2, 3),
		}
	}
	report := func(rows ...*pb.LoadRow) Seen {
		return Seen{Load: &pb.LoadReport{WindowMs: 2000, Rows: rows}, LoadAge: time.Second}
	}
	stale := report(row("eu", "us", 1000, 0))
	stale.LoadAge = time.Hour
	got := Traffic(map[mesh.ClusterID]Seen{
		"a": report(row("eu", "eu", 200, 10), row("eu", "us", 20, 20)), "b": report(row("eu", "eu", 200, 10), nil), "c": stale, "d": {},
	})
	if len(got) != 3 { // the nil row is a service without a name
		t.Fatalf("%d cells: %v", len(got), got)
	}
	home := got[1]
	if home.GetRequestsPerSecond() != 200 || home.GetErrorRatio() != 0.05 || home.GetAgeMs() != 1000 {
		t.Errorf("home cell %v", home)
	}
	if p50 := home.GetP50Ms(); p50 < 8 || p50 > 12 {
		t.Errorf("p50 %v ms", p50)
	}
}
