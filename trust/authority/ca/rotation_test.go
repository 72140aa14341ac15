package ca

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// schedule walks the rotation from step to step in made-up time.
type schedule struct {
	t      *rapid.T
	domain spiffeid.TrustDomain
	life   time.Duration
	now    time.Time
	state  *State
	first  map[string]time.Time // when each root was published
}

func (s *schedule) step() {
	fresh, err := newRoot(s.domain, s.now, s.life)
	if err != nil {
		s.t.Fatal(err)
	}
	before := s.state
	next := before.clone()
	next.advance(s.now, fresh)
	s.check(before, next)
	s.state = next
}

func (s *schedule) check(before, after *State) {
	signing := after.In(Active)
	if signing == nil || !s.now.Before(signing.certificate.NotAfter) {
		s.t.Fatalf("at %v nothing signs", s.now)
	}
	for _, r := range after.roots {
		if _, known := s.first[r.ID()]; !known {
			s.first[r.ID()] = s.now
		}
	}
	if was := before.In(Active); was != nil && was.ID() != signing.ID() {
		published := s.first[signing.ID()]
		known, left := s.now.Sub(published), was.certificate.NotAfter.Sub(published)
		if s.now.Before(was.certificate.NotAfter) && known < min(s.life/4, left/2)-2*backdate(s.life) {
			s.t.Fatalf("a root signs %v after it was published, when the old one had %v left", known, left)
		}
	}
	for _, r := range before.roots {
		if after.Find(r.ID()) == nil && s.now.Before(r.certificate.NotAfter) && r.phase != Prepared {
			s.t.Fatalf("root %s left before it expired", r.ID())
		}
	}
	if len(after.roots) > 3 {
		s.t.Fatalf("%d roots at once", len(after.roots))
	}
}

// Whatever the life of a root and whenever the process was stopped, something always signs, roots are known long
// before they sign, and none leaves before it expired.
func TestRotationSchedule(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &schedule{
			t: rt, domain: spiffeid.RequireTrustDomainFromString("east.mesh"), state: newState(),
			life:  time.Duration(rapid.IntRange(60, 30*24*3600).Draw(rt, "life")) * time.Second,
			now:   time.Unix(1_800_000_000, 0),
			first: make(map[string]time.Time),
		}
		s.step()
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			s.now = s.state.nextStep()
			if rapid.IntRange(0, 5).Draw(rt, "stop") == 0 {
				s.now = s.now.Add(time.Duration(rapid.Int64Range(0, int64(2*s.life)).Draw(rt, "for")))
			}
			for tries := 0; !s.state.nextStep().After(s.now); tries++ {
				if s.step(); tries > 3 {
					rt.Fatalf("the next step, %v, stays before %v", s.state.nextStep(), s.now)
				}
			}
		}
	})
}

// The sequence number rises exactly when the roots change, not with each use of the state.
func TestSequence(t *testing.T) {
	domain := spiffeid.RequireTrustDomainFromString("east.mesh")
	a, err := open(Config{TrustDomain: domain, Dir: t.TempDir(), Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *Root {
		r, err := newRoot(domain, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for i, row := range []struct {
		change func(*State)
		want   uint64
	}{
		{func(s *State) { s.Prepare(fresh()) }, 1},
		{func(s *State) { s.Activate() }, 1},
		{func(s *State) {}, 1},
		{func(s *State) { s.Prepare(fresh()) }, 2},
		{func(s *State) { s.Prepare(fresh()) }, 3},
		{func(s *State) { s.Activate() }, 3},
		{func(s *State) { s.Taint(s.In(Old)) }, 4},
		{func(s *State) { s.Revoke(s.In(Old)) }, 5},
	} {
		if err := a.Update(func(s *State) error { row.change(s); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := a.Latest().sequence; got != row.want {
			t.Fatalf("step %d: sequence %d, want %d", i, got, row.want)
		}
	}
}

// Root keys that a killed process left half written do not stay.
func TestLeftoversAreSwept(t *testing.T) {
	c := Config{TrustDomain: spiffeid.RequireTrustDomainFromString("east.mesh"), Dir: t.TempDir(), Life: time.Hour, Log: slog.New(slog.DiscardHandler)}
	left, err := durable.Stage(filepath.Join(c.Dir, "state"), []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// No state file makes the reader panic.
func FuzzDecodeState(f *testing.F) {
	domain := spiffeid.RequireTrustDomainFromString("east.mesh")
	r, err := newRoot(domain, time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	s := newState()
	s.Prepare(r)
	data, err := encodeState(domain, s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"trust_domain":"east.mesh","roots":[{}],"entries":[{}],"bundles":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := decodeState(domain, data); err == nil {
			if _, err := encodeState(domain, s); err != nil {
				t.Fatal(err)
			}
		}
	})
}
