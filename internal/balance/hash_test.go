package balance

import (
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"
)

// Known answers of the specification's reference implementation, and equality with an established implementation.
func TestXXHash(t *testing.T) {
	for input, want := range map[string]uint64{
		"": 0xef46db3751d8e999, "a": 0xd24ec4f1a98c6e5b, "abc": 0x44bc2cf5ad770999,
	} {
		if got := HashString(input); got != want {
			t.Errorf("%q: got %x, want %x", input, got, want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(rt, "bytes")
		seed := rapid.Uint64().Draw(rt, "seed")
		reference := xxhash.NewWithSeed(seed)
		_, _ = reference.Write(b)
		if got, want := xxhash64(b, seed), reference.Sum64(); got != want {
			rt.Fatalf("seed %d, % x: got %x, want %x", seed, b, got, want)
		}
		if Hash(b) != xxhash.Sum64(b) || HashString(string(b)) != xxhash.Sum64(b) {
			rt.Fatal("Hash differs")
		}
	})
}

func mapping(s *Set) map[uint64]string {
	m := map[uint64]string{}
	for i := range uint64(20_000) {
		key := i * golden
		h, _ := s.Pick(Request{Hash: key, HasHash: true})
		m[key] = h.Address
	}
	return m
}

// Removing one of n hosts moves its own keys and few others: Maglev by its nature, the ring because its size is
// rounded to a whole number of entries per host, here 103 for ten hosts and 114 for nine.
func TestHashStability(t *testing.T) {
	for policy, allowed := range map[Policy]float64{RingHash: 0.12, Maglev: 0.06} {
		s := NewSet(flat(policy, hosts("h", 10)...), nil)
		before := mapping(s)
		s.SetFailing(s.Hosts()[3], true)
		after := mapping(s)
		s.SetFailing(s.Hosts()[3], false)
		moved := 0
		for key, host := range before {
			switch {
			case after[key] == "h3:80":
				t.Fatal("a failing host is picked")
			case host != "h3:80" && after[key] != host:
				moved++
			}
		}
		if share := float64(moved) / float64(len(before)); share > allowed {
			t.Errorf("policy %d: %.1f%% of the keys of other hosts moved, want at most %.1f%%", policy, share*100, allowed*100)
		}
		for key, host := range mapping(s) {
			if before[key] != host {
				t.Fatalf("policy %d: the host is back but key %x is not", policy, key)
			}
		}
	}
}

// The mapping depends on the hosts alone, not on their history, the random source or earlier picks.
func TestHashIsAFunctionOfTheHosts(t *testing.T) {
	for _, policy := range []Policy{RingHash, Maglev} {
		spec := flat(policy, hosts("h", 7)...)
		one := mapping(NewSet(spec, nil))
		spec.Random = nil
		two := mapping(NewSet(spec, NewSet(flat(policy, hosts("h", 3)...), nil)))
		for key := range one {
			if one[key] != two[key] {
				t.Fatalf("policy %d: key %x is at %s and at %s", policy, key, one[key], two[key])
			}
		}
	}
}
