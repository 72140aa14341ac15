package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Enough for shares within 2 points; the properties repeat them a hundred times.
const picks = 20_000

func seeded() func() uint64 { return rand.New(rand.NewPCG(1, 2)).Uint64 }

func hosts(name string, n int) []HostSpec {
	var made []HostSpec
	for i := range n {
		made = append(made, HostSpec{Address: fmt.Sprintf("%s%d:80", name, i)})
	}
	return made
}

func flat(policy Policy, hosts ...HostSpec) Spec {
	return Spec{Policy: policy, Random: seeded(), Levels: []Level{{Localities: []Locality{{Hosts: hosts}}}}}
}

// shares are in percent.
func shares(t testing.TB, s *Set, by func(*Host) string) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	for range picks {
		h, err := s.Pick(Request{})
		if err != nil {
			t.Fatal(err)
		}
		got[by(h)] += 100.0 / picks
	}
	return got
}

func address(h *Host) string { return h.Address }

// Idle hosts get their weight's share, under every policy.
func TestSharesFollowWeights(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		policy := Policy(rapid.IntRange(0, 4).Draw(rt, "policy"))
		specs := hosts("h", rapid.IntRange(1, 12).Draw(rt, "hosts"))
		var total float64
		for i := range specs {
			specs[i].Weight = uint32(rapid.IntRange(1, 20).Draw(rt, "weight"))
			total += float64(specs[i].Weight)
		}
		spec := flat(policy, specs...)
		spec.MinRing = 1 << 17 // a small ring is as uneven as hashes are
		got := shares(t, NewSet(spec, nil), address)
		for _, h := range specs {
			if want := 100 * float64(h.Weight) / total; math.Abs(got[h.Address]-want) > 2 {
				rt.Fatalf("policy %d, %s: got %.2f%%, want %.2f%%", policy, h.Address, got[h.Address], want)
			}
		}
	})
}

// Priorities share as the formula says, whatever the hosts' health.
func TestSharesFollowPriorities(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		spec := Spec{Policy: Policy(rapid.IntRange(0, 2).Draw(rt, "policy")), PanicPercent: 50, Random: seeded()}
		var tallies []tally
		for p := range rapid.IntRange(1, 4).Draw(rt, "levels") {
			specs := hosts(fmt.Sprintf("p%d-", p), rapid.IntRange(1, 10).Draw(rt, "hosts"))
			tally := tally{total: uint64(len(specs))}
			for i := range specs {
				if specs[i].Health = Health(rapid.IntRange(0, 2).Draw(rt, "health")); specs[i].Health == Healthy {
					tally.healthy++
				} else if specs[i].Health == Degraded {
					tally.degraded++
				}
			}
			tallies = append(tallies, tally)
			spec.Levels = append(spec.Levels, Level{[]Locality{{Hosts: specs}}})
		}
		want := newLoads(tallies, 140, 50)
		got := shares(t, NewSet(spec, nil), func(h *Host) string { return fmt.Sprint(h.Priority) })
		for p := range tallies {
			if want := float64(want.healthy[p] + want.degraded[p]); math.Abs(got[fmt.Sprint(p)]-want) > 2 {
				rt.Fatalf("priority %d: got %.2f%%, want %.2f%%, %v", p, got[fmt.Sprint(p)], want, tallies)
			}
		}
	})
}

func TestRoundRobinTakesTurns(t *testing.T) {
	s := NewSet(flat(RoundRobin, hosts("h", 5)...), nil)
	seen := map[string]int{}
	for range 50 {
		h, _ := s.Pick(Request{})
		seen[h.Address]++
	}
	for address, n := range seen {
		if n != 10 {
			t.Errorf("%s was picked %d times of 50, want 10", address, n)
		}
	}
}

func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	s := NewSet(flat(LeastRequest, hosts("h", 2)...), nil)
	s.Hosts()[0].Begin()
	for range 100 {
		if h, _ := s.Pick(Request{}); h != s.Hosts()[1] {
			t.Fatal("picked the busy one of two hosts")
		}
	}
	s.Hosts()[0].End()
	if got := shares(t, s, address)["h0:80"]; math.Abs(got-50) > 2 {
		t.Errorf("idle: got %v%%, want 50%%", got)
	}
}

// With weights, active requests settle in proportion to them.
func TestLeastRequestFillsByWeight(t *testing.T) {
	specs := hosts("h", 3)
	specs[1].Weight, specs[2].Weight = 2, 5
	s := NewSet(flat(LeastRequest, specs...), nil)
	for range 800 {
		h, _ := s.Pick(Request{})
		h.Begin()
	}
	for i, want := range []float64{100, 200, 500} {
		if got := float64(s.Hosts()[i].Active()); math.Abs(got-want) > want/5 {
			t.Errorf("host %d: got %v active, want about %v", i, got, want)
		}
	}
}

func TestPickExcludes(t *testing.T) {
	spec := flat(Random, hosts("a", 3)...)
	spec.Levels = append(spec.Levels, Level{[]Locality{{Hosts: hosts("b", 1)}}})
	s := NewSet(spec, nil)
	tried := map[*Host]bool{}
	for range 4 {
		h, err := s.Pick(Request{Exclude: func(h *Host) bool { return tried[h] }})
		if err != nil || tried[h] {
			t.Fatalf("got %v %v, want a host not tried yet, of the next priority if need be", h, err)
		}
		tried[h] = true
	}
	if h, err := s.Pick(Request{Exclude: func(h *Host) bool { return tried[h] }}); err != nil || h == nil {
		t.Errorf("all tried: got %v %v, want any host", h, err)
	}
}

// Priorities that a request was tried at are left out as long as another can take it, and the rest of the load is
// shared by the formula (envoy docs: previous_priorities).
func TestPickGoesFurther(t *testing.T) {
	level := func(name string, up, down int) Level {
		specs := hosts(name, up+down)
		for i := range specs[up:] {
			specs[up+i].Health = Unhealthy
		}
		return Level{[]Locality{{Hosts: specs}}}
	}
	for _, c := range []struct {
		levels []Level
		avoid  []int
		want   map[string]float64 // by priority, percent
	}{
		{[]Level{level("a", 2, 0), level("b", 2, 0)}, nil, map[string]float64{"0": 100}},
		{[]Level{level("a", 2, 0), level("b", 2, 0)}, []int{0}, map[string]float64{"1": 100}},
		{[]Level{level("a", 2, 0), level("b", 1, 1), level("c", 1, 0)}, []int{0}, map[string]float64{"1": 70, "2": 30}},
		{[]Level{level("a", 2, 0), level("b", 0, 2)}, []int{0}, map[string]float64{"0": 100}},
		{[]Level{level("a", 2, 0), level("b", 2, 0)}, []int{0, 1, 7}, map[string]float64{"0": 100}},
	} {
		s := NewSet(Spec{Policy: Random, Random: seeded(), Levels: c.levels}, nil)
		got := map[string]float64{}
		for range picks {
			h, err := s.Pick(Request{Avoid: c.avoid})
			if err != nil {
				t.Fatal(err)
			}
			got[fmt.Sprint(h.Priority)] += 100.0 / picks
		}
		for priority := range 3 {
			if want := c.want[fmt.Sprint(priority)]; math.Abs(got[fmt.Sprint(priority)]-want) > 2 {
				t.Errorf("avoiding %v: got %v, want %v", c.avoid, got, c.want)
			}
		}
	}
	s := NewSet(Spec{Random: seeded(), Levels: []Level{level("a", 2, 0), level("b", 1, 0)}}, nil)
	tried := s.Hosts()[2]
	if h, err := s.Pick(Request{Avoid: []int{0}, Exclude: func(h *Host) bool { return h == tried }}); err != nil || h.Priority != 0 {
		t.Errorf("the one host further away was tried: got %v %v, want a near one", h, err)
	}
}

func TestNoHost(t *testing.T) {
	specs := hosts("h", 1)
	specs[0].Health = Unhealthy
	for name, spec := range map[string]Spec{"empty": {}, "empty level": {Levels: []Level{{}}}, "unhealthy, no panic": flat(RoundRobin, specs...)} {
		if h, err := NewSet(spec, nil).Pick(Request{}); err != ErrNoHost {
			t.Errorf("%s: got %v %v, want ErrNoHost", name, h, err)
		}
	}
	panicking := flat(RoundRobin, specs...)
	panicking.PanicPercent = 50
	if _, err := NewSet(panicking, nil).Pick(Request{}); err != nil {
		t.Errorf("panic: got %v, want a host", err)
	}
}

// A gateway that stands for 100 endpoints counts as 100 only with weights.
func TestWeightedHealth(t *testing.T) {
	for weighted, want := range map[bool]float64{false: 30, true: 0} {
		specs := []HostSpec{{Address: "gw", Weight: 100}, {Address: "pod", Health: Unhealthy}}
		spec := flat(Random, specs...)
		spec.WeightedHealth = weighted
		spec.Levels = append(spec.Levels, Level{[]Locality{{Hosts: hosts("next", 1)}}})
		if got := shares(t, NewSet(spec, nil), address)["next0:80"]; math.Abs(got-want) > 2 {
			t.Errorf("weighted %v: next level got %v%%, want %v%%", weighted, got, want)
		}
	}
}

func TestOneAddressIsOneHost(t *testing.T) {
	spec := flat(RoundRobin, hosts("h", 2)...)
	spec.Levels = append(spec.Levels, Level{[]Locality{{Hosts: hosts("h", 3)}}})
	s := NewSet(spec, nil)
	if len(s.Hosts()) != 3 || s.Hosts()[0].Priority != 0 || s.Hosts()[2].Priority != 1 {
		t.Errorf("got %d hosts, want 3, the first of each address kept", len(s.Hosts()))
	}
}

// What is known of a host outlives the Set; an address that left and came back is a new host.
func TestHealthSurvivesUpdates(t *testing.T) {
	first := NewSet(flat(RoundRobin, hosts("h", 3)...), nil)
	first.Hosts()[0].Begin()
	first.SetFailing(first.Hosts()[1], true)
	second := NewSet(flat(RoundRobin, hosts("h", 4)...), first)
	if second.Hosts()[0].Active() != 1 || !second.Hosts()[1].Failing() {
		t.Error("active requests or health got lost")
	}
	// A report on the old version changes the new one.
	first.SetFailing(first.Hosts()[2], true)
	got := shares(t, second, address)
	if got["h1:80"]+got["h2:80"] != 0 || math.Abs(got["h3:80"]-50) > 1 {
		t.Errorf("got %v, want half each for h0 and h3", got)
	}
	third := NewSet(flat(RoundRobin, hosts("x", 1)...), second)
	fourth := NewSet(flat(RoundRobin, hosts("h", 4)...), third)
	if fourth.Hosts()[1].Failing() {
		t.Error("an address that was gone kept its state")
	}
	if fourth.Breaker() != first.Breaker() {
		t.Error("the circuit breaker did not survive")
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	for policy := RoundRobin; policy <= Maglev; policy++ {
		s := NewSet(flat(policy, hosts("h", 10)...), nil)
		if n := testing.AllocsPerRun(100, func() { _, _ = s.Pick(Request{Hash: 7, HasHash: true}) }); n != 0 {
			t.Errorf("policy %d: %v allocations", policy, n)
		}
	}
	long := strings.Repeat("x", 100)
	if n := testing.AllocsPerRun(100, func() { HashString(long) }); n != 0 {
		t.Errorf("HashString: %v allocations", n)
	}
}

// Virtual 2-core machine: see docs/performance.md.
func BenchmarkPick(b *testing.B) {
	for _, policy := range []Policy{RoundRobin, LeastRequest, RingHash, Maglev} {
		for _, n := range []int{1, 10, 1000} {
			for _, weight := range []string{"equal", "weighted"} {
				specs := hosts("h", n)
				for i := range specs {
					if weight == "weighted" {
						specs[i].Weight = uint32(1 + i%7)
					}
				}
				spec := flat(policy, specs...)
				spec.Random = nil
				s := NewSet(spec, nil)
				b.Run(fmt.Sprintf("policy=%d/hosts=%d/%s", policy, n, weight), func(b *testing.B) {
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						for i := uint64(0); pb.Next(); i++ {
							_, _ = s.Pick(Request{Hash: i * golden, HasHash: true})
						}
					})
				})
			}
		}
	}
}

func BenchmarkNewSet(b *testing.B) {
	for policy := RoundRobin; policy <= Maglev; policy++ {
		b.Run(fmt.Sprintf("policy=%d/hosts=1000", policy), func(b *testing.B) {
			spec, s := flat(policy, hosts("h", 1000)...), (*Set)(nil)
			for range b.N {
				s = NewSet(spec, s)
			}
		})
	}
}

// In panic every host of the level is used, whatever its locality weighs.
func TestPanicDisregardsLocalities(t *testing.T) {
	sick := hosts("x", 10)
	for i := range sick[1:] {
		sick[i+1].Health = Unhealthy
	}
	dead := hosts("y", 10)
	for i := range dead {
		dead[i].Health = Unhealthy
	}
	s := NewSet(Spec{PanicPercent: 50, LocalityWeighted: true, Random: seeded(), Levels: []Level{{Localities: []Locality{
		{Zone: "x", Weight: 1, Hosts: sick}, {Zone: "y", Weight: 2, Hosts: dead},
	}}}}, nil)
	zones := map[string]int{}
	for range 200 {
		h, err := s.Pick(Request{})
		if err != nil {
			t.Fatal(err)
		}
		zones[h.Zone]++
	}
	if zones["x"] != 100 || zones["y"] != 100 {
		t.Error(zones)
	}
}
