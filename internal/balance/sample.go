package balance

import "math/bits"

// golden is 2^64 divided by the golden ratio: the multiples of it, modulo 2^64, are spread as evenly as any
// sequence can be, so a counter times golden visits weighted hosts in their shares and well mixed.
const golden = 0x9E3779B97F4A7C15

// sampler maps a uniform 64 bit number to an index, by weight.
type sampler struct {
	n uint64
	// cumulative weights; nil if all are equal.
	cumulative []uint64
	total      uint64
}

func newSampler(weights []uint64) sampler {
	s := sampler{n: uint64(len(weights))}
	equal := true
	for _, w := range weights {
		equal = equal && w == weights[0]
	}
	if equal {
		return s
	}
	s.cumulative = make([]uint64, len(weights))
	for i, w := range weights {
		s.total += w
		s.cumulative[i] = s.total
	}
	return s
}

func (s *sampler) at(u uint64) int {
	if s.cumulative == nil {
		i, _ := bits.Mul64(u, s.n)
		return int(i)
	}
	point, _ := bits.Mul64(u, s.total)
	low, high := 0, len(s.cumulative)-1
	for low < high {
		mid := int(uint(low+high) >> 1)
		if s.cumulative[mid] > point {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// two returns two different indices, the first by weight. n must be at least 2.
func (s *sampler) two(u, v uint64) (int, int) {
	i := s.at(u)
	if s.cumulative != nil {
		if j := s.at(v); j != i {
			return i, j
		}
	}
	step, _ := bits.Mul64(v, s.n-1)
	return i, (i + 1 + int(step)) % int(s.n)
}
