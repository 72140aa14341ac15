package balance

import (
	"math"
	"slices"
	"sort"
	"strconv"
)

// weightedHost is a host and its share of a hash table; the shares sum to 1.
type weightedHost struct {
	host  *Host
	share float64
}

// newTable uses the localities' plain weights, as Envoy does for tables (thread_aware_lb_impl.cc).
func newTable(spec Spec, parts []part) table {
	var total float64
	for _, p := range parts {
		total += float64(p.weight)
	}
	var hosts []weightedHost
	for _, p := range parts {
		var sum float64
		for _, h := range p.hosts {
			sum += float64(h.Weight)
		}
		for _, h := range p.hosts {
			hosts = append(hosts, weightedHost{h, float64(p.weight) / total * float64(h.Weight) / sum})
		}
	}
	if spec.Policy == Maglev {
		return newMaglev(hosts)
	}
	return newRing(hosts, spec.MinRing, spec.MaxRing)
}

// ring is Envoy's ring hash (ring_hash_lb.cc): a host has entries xxhash64("address_i") in number of its share.
type ring []ringEntry

type ringEntry struct {
	hash uint64
	host *Host
}

func newRing(hosts []weightedHost, minSize, maxSize uint64) ring {
	least := 1.0
	for _, h := range hosts {
		least = min(least, h.share)
	}
	scale := min(math.Ceil(least*float64(minSize))/least, float64(maxSize))
	r := make(ring, 0, int(math.Ceil(scale)))
	var made, target float64
	var key []byte
	for _, h := range hosts {
		target += scale * h.share
		key = append(append(key[:0], h.host.Address...), '_')
		prefix := len(key)
		for i := int64(0); made < target; i++ {
			key = strconv.AppendInt(key[:prefix], i, 10)
			r = append(r, ringEntry{xxhash64(key, 0), h.host})
			made++
		}
	}
	slices.SortFunc(r, func(a, b ringEntry) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return 0
	})
	return r
}

func (r ring) host(hash uint64) *Host {
	i := sort.Search(len(r), func(i int) bool { return r[i].hash >= hash })
	if i == len(r) {
		i = 0
	}
	return r[i].host
}

// maglevSize is prime; Envoy's default.
const maglevSize = 65537

// maglev is Envoy's table (maglev_lb.cc): each host in turn, as often as its share asks, takes the next free slot of
// its own permutation.
type maglev struct {
	hosts []weightedHost
	slots []int32
}

func newMaglev(hosts []weightedHost) *maglev {
	m := &maglev{hosts: hosts, slots: make([]int32, maglevSize)}
	for i := range m.slots {
		m.slots[i] = -1
	}
	most := 0.0
	builds := make([]maglevBuild, len(hosts))
	for i, h := range hosts {
		key := []byte(h.host.Address)
		builds[i] = maglevBuild{at: xxhash64(key, 0) % maglevSize, skip: xxhash64(key, 1)%(maglevSize-1) + 1}
		most = max(most, h.share)
	}
	for filled, round := 0, 1.0; filled < maglevSize; round++ {
		for i := range builds {
			if filled == maglevSize || round*hosts[i].share < builds[i].target {
				continue
			}
			builds[i].target += most
			m.slots[builds[i].free(m.slots)] = int32(i)
			filled++
		}
	}
	return m
}

type maglevBuild struct {
	at, skip uint64
	target   float64
}

// free walks the permutation to its next free slot.
func (b *maglevBuild) free(slots []int32) uint64 {
	for slots[b.at] >= 0 {
		b.at = (b.at + b.skip) % maglevSize
	}
	return b.at
}

func (m *maglev) host(hash uint64) *Host { return m.hosts[m.slots[hash%maglevSize]].host }
