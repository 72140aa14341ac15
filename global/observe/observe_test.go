package observe

import (
	"errors"
	"testing"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func share(from, to *Board, now time.Time) { to.Receive(from.replica, from.Observations(now, 7), now) }

func TestEveryReplicaKnowsEveryAgent(t *testing.T) {
	now := time.Now()
	a, b := NewBoard("a", Place{}), NewBoard("b", Place{})
	if err := a.Connect(Session{Cluster: "west", Instance: "1", AgentVersion: "v1"}, now); err != nil {
		t.Fatal(err)
	}
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
	if err := a.Connect(first, now); err != nil {
		t.Fatal(err)
	}
	share(a, b, now)
	var duplicate *ErrDuplicate
	if err := a.Connect(second, now); !errors.As(err, &duplicate) {
		t.Errorf("same replica: %v", err)
	}
	if err := b.Connect(second, now); !errors.As(err, &duplicate) || duplicate.Replica != "a" {
		t.Errorf("other replica: %v", err)
	}
	if err := b.Connect(first, now); err != nil {
		t.Errorf("the same instance: %v", err)
	}
	b.Disconnect(first, now)
	a.Disconnect(first, now)
	share(a, b, now)
	if err := b.Connect(second, now); err != nil {
		t.Errorf("after the first is gone: %v", err)
	}
	b.Disconnect(first, now) // late news of a ghost
	if !b.View(now)["west"].Connected {
		t.Error("a ghost's end disconnected the living")
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
