package balance

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_000_000, 0)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func percent(p uint32) *uint32 { return &p }

func outlierSet(n int, c OutlierConfig) *Set {
	spec := flat(RoundRobin, hosts("h", n)...)
	spec.Outlier = &c
	return NewSet(spec, nil)
}

func TestConsecutiveFailures(t *testing.T) {
	all := OutlierConfig{Consecutive5xx: 3, ConsecutiveGateway: 2, ConsecutiveLocal: 4, MaxEjectionPercent: percent(100)}
	only5xx := OutlierConfig{Consecutive5xx: 3, MaxEjectionPercent: percent(100)}
	split := all
	split.SplitLocal = true
	const s, e, g, l, c = Success, ServerError, GatewayError, LocalFailure, LocalSuccess
	for _, test := range []struct {
		name    string
		config  OutlierConfig
		results []Result
		want    bool
	}{
		{"5xx below", only5xx, []Result{e, e}, false},
		{"5xx reached", only5xx, []Result{e, g, e}, true},
		{"local counts as 5xx", only5xx, []Result{l, l, l}, true},
		{"success resets", only5xx, []Result{e, e, s, e, e}, false},
		{"a connection is no success", only5xx, []Result{l, c, l, c, l}, true},
		{"gateway reached", all, []Result{g, g}, true},
		{"local counts as gateway failure", all, []Result{g, l}, true},
		{"other 5xx resets gateway", all, []Result{g, e}, false},
		{"zero is never", OutlierConfig{MaxEjectionPercent: percent(100)}, []Result{e, e, e, g, g, g, l, l, l, l, l}, false},
		{"split below", split, []Result{l, l, l}, false},
		{"split reached", split, []Result{l, s, l, e, l, l}, true},
		{"split reset by a connection", split, []Result{l, l, l, c, l}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := outlierSet(2, test.config)
			for _, r := range test.results {
				set.Report(set.Hosts()[0], r, at(0))
			}
			if got := set.Hosts()[0].Ejected(); got != test.want {
				t.Errorf("ejected: got %v, want %v", got, test.want)
			}
			if set.Hosts()[1].Ejected() {
				t.Error("the other host is ejected")
			}
		})
	}
}

func TestMaxEjectionPercent(t *testing.T) {
	for _, test := range []struct {
		hosts  int
		config OutlierConfig
		want   int
	}{
		{9, OutlierConfig{}, 0}, // the default, 10%, protects every host of a small cluster
		{10, OutlierConfig{}, 1},
		{25, OutlierConfig{}, 2},
		{3, OutlierConfig{AlwaysEjectOne: true}, 1},
		{4, OutlierConfig{MaxEjectionPercent: percent(50)}, 2},
		{4, OutlierConfig{MaxEjectionPercent: percent(100)}, 4},
		{4, OutlierConfig{MaxEjectionPercent: percent(0)}, 0},
	} {
		test.config.Consecutive5xx = 1
		s := outlierSet(test.hosts, test.config)
		for _, h := range s.Hosts() {
			s.Report(h, ServerError, at(0))
		}
		got := 0
		for _, h := range s.Hosts() {
			if h.Ejected() {
				got++
			}
		}
		if got != test.want {
			t.Errorf("%d hosts, %+v: got %d ejected, want %d", test.hosts, test.config, got, test.want)
		}
	}
}

// 30 s times the number of ejections; each interval in health takes one off.
func TestEjectionTimeline(t *testing.T) {
	s := outlierSet(2, OutlierConfig{Consecutive5xx: 1, MaxEjectionPercent: percent(50)})
	h := s.Hosts()[0]
	for _, step := range []struct {
		second int
		fail   bool // else Tick
		want   bool
	}{
		{0, true, true}, {10, false, true}, {29, false, true}, {30, false, false},
		{31, true, true}, {61, false, true}, {90, false, true}, {91, false, false}, // 60 s
		{92, true, true}, {181, false, true}, {182, false, false}, // 90 s
		{192, false, false}, {202, false, false}, // in health: 3 -> 1
		{203, true, true}, {262, false, true}, {263, false, false}, // 60 s
	} {
		if step.fail {
			s.Report(h, ServerError, at(step.second))
		} else {
			s.Tick(at(step.second))
		}
		if h.Ejected() != step.want {
			t.Fatalf("second %d: ejected is %v, want %v", step.second, h.Ejected(), step.want)
		}
		if picked, _ := s.Pick(Request{}); step.want && picked == h {
			t.Fatalf("second %d: picked while ejected", step.second)
		}
	}
}

func TestEjectionIsAtMostTheMaximum(t *testing.T) {
	s := outlierSet(1, OutlierConfig{Consecutive5xx: 1, MaxEjectionPercent: percent(100)})
	h, now := s.Hosts()[0], 0
	for range 30 {
		s.Report(h, ServerError, at(now))
		now += 300
		s.Tick(at(now))
		if h.Ejected() {
			t.Fatal("ejected for longer than 300 s")
		}
	}
}

func TestOutlierSurvivesUpdates(t *testing.T) {
	first := outlierSet(2, OutlierConfig{Consecutive5xx: 2, MaxEjectionPercent: percent(100)})
	first.Report(first.Hosts()[0], ServerError, at(0))
	spec := flat(RoundRobin, hosts("h", 3)...)
	spec.Outlier = &OutlierConfig{Consecutive5xx: 2, MaxEjectionPercent: percent(100)}
	second := NewSet(spec, first)
	first.Report(first.Hosts()[0], ServerError, at(1)) // a request that began before the update
	if !second.Hosts()[0].Ejected() {
		t.Fatal("the count of consecutive failures got lost")
	}
	spec.Outlier = nil
	third := NewSet(spec, second)
	third.Tick(at(2))
	if third.Hosts()[0].Ejected() {
		t.Error("still ejected though outlier detection is off")
	}
	// A host that is no longer in the Set must not count.
	second.Report(&Host{Address: "h0:80", state: &state{}}, ServerError, at(3))
}

// The plan equals one made from scratch, whatever happened before.
func TestPlanFollowsHealth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := outlierSet(6, OutlierConfig{Consecutive5xx: 2, MaxEjectionPercent: percent(60)})
		now := 0
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			now += rapid.IntRange(0, 20).Draw(rt, "seconds")
			h := s.Hosts()[rapid.IntRange(0, len(s.Hosts())-1).Draw(rt, "host")]
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				s.Report(h, Result(rapid.IntRange(0, 4).Draw(rt, "result")), at(now))
			case 1:
				s.Tick(at(now))
			case 2:
				s.SetFailing(h, rapid.Bool().Draw(rt, "failing"))
			case 3:
				spec := flat(RoundRobin, hosts("h", rapid.IntRange(1, 8).Draw(rt, "hosts"))...)
				spec.Outlier = &OutlierConfig{Consecutive5xx: 2, MaxEjectionPercent: percent(60)}
				s = NewSet(spec, s)
			}
		}
		got, want := s.plan.Load(), newPlan(s)
		if len(got.pools) != len(want.pools) {
			rt.Fatalf("got %d pools, from scratch %d", len(got.pools), len(want.pools))
		}
		for i := range got.pools {
			if len(got.pools[i].hosts) != len(want.pools[i].hosts) {
				rt.Fatalf("got %v, from scratch %v", got.pools[i].hosts, want.pools[i].hosts)
			}
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	spec := flat(LeastRequest, hosts("h", 20)...)
	spec.Random = nil
	spec.Outlier = &OutlierConfig{Consecutive5xx: 2, MaxEjectionPercent: percent(50)}
	s := NewSet(spec, nil)
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for i := range 2_000 {
				h, err := s.Pick(Request{})
				if err != nil {
					t.Error(err)
					return
				}
				h.Begin()
				s.Report(h, Result(i%5), at(i/100))
				h.End()
			}
		})
	}
	for i := range 200 {
		NewSet(spec, s)
		s.Tick(at(i))
	}
	users.Wait()
	for _, h := range s.Hosts() {
		if h.Active() != 0 {
			t.Errorf("%s: %d active, want 0", h.Address, h.Active())
		}
	}
}
