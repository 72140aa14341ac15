package balance

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// XXH64 (xxhash specification, section "XXH64 algorithm description"): what Envoy hashes hosts and requests with.
const (
	prime1 uint64 = 11400714785074694791
	prime2 uint64 = 14029467366897019727
	prime3 uint64 = 1609587929392839161
	prime4 uint64 = 9650029242287828579
	prime5 uint64 = 2870177450012600261
)

// Hash is the hash of a request's header, cookie or address, for Request.Hash, equal to Envoy's.
func Hash(b []byte) uint64 { return xxhash64(b, 0) }

// HashString is Hash without the copy that a conversion would cost for short strings.
func HashString(s string) uint64 {
	var short [128]byte
	return xxhash64(append(short[:0], s...), 0)
}

// HashStrings is the hash of several values of one header: equal to Envoy's, whatever their order.
func HashStrings(values []string) (hash uint64) {
	for _, v := range slices.Sorted(slices.Values(values)) {
		hash = xxhash64([]byte(v), hash)
	}
	return hash
}

func xxhash64(b []byte, seed uint64) uint64 {
	n := uint64(len(b))
	h := seed + prime5
	if n >= 32 {
		h, b = stripes(b, seed)
	}
	h += n
	for ; len(b) >= 8; b = b[8:] {
		h ^= round(0, binary.LittleEndian.Uint64(b))
		h = bits.RotateLeft64(h, 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * prime1
		h = bits.RotateLeft64(h, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h ^= uint64(c) * prime5
		h = bits.RotateLeft64(h, 11) * prime1
	}
	return avalanche(h)
}

// stripes hashes the whole 32 byte stripes and returns the rest.
func stripes(b []byte, seed uint64) (uint64, []byte) {
	lanes := [4]uint64{seed + prime1, seed, seed, seed}
	lanes[0] += prime2
	lanes[1] += prime2
	lanes[3] -= prime1
	for ; len(b) >= 32; b = b[32:] {
		for i := range lanes {
			lanes[i] = round(lanes[i], binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	h := bits.RotateLeft64(lanes[0], 1) + bits.RotateLeft64(lanes[1], 7) +
		bits.RotateLeft64(lanes[2], 12) + bits.RotateLeft64(lanes[3], 18)
	for _, lane := range lanes {
		h = (h^round(0, lane))*prime1 + prime4
	}
	return h, b
}

func round(lane, input uint64) uint64 {
	return bits.RotateLeft64(lane+input*prime2, 31) * prime1
}

func avalanche(h uint64) uint64 {
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}
