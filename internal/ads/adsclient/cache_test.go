package adsclient

import (
	"slices"
	"testing"

	"github.com/periplus-mesh/periplus/internal/xds"
)

func FuzzCache(f *testing.F) {
	f.Add(encodeCache("n", []kept{{xds.Cluster, "a", "v", []byte("body")}}))
	f.Add(encodeCache("n", nil))
	f.Add([]byte(cacheMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		resources, err := decodeCache(data, "n")
		if err == nil && !slices.Equal(data, encodeCache("n", resources)) && len(data) < 100 {
			again, err := decodeCache(encodeCache("n", resources), "n")
			if err != nil || len(again) != len(resources) {
				t.Fatalf("read %v, then %v, %v", resources, again, err)
			}
		}
	})
}

// FuzzCacheBody is FuzzCache behind the checksum.
func FuzzCacheBody(f *testing.F) {
	whole := encodeCache("n", []kept{{xds.Cluster, "a", "v", []byte("body")}})
	f.Add(whole[len(cacheMagic) : len(whole)-32])
	f.Add([]byte{1, 'n', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		resources, err := decodeCache(seal(append([]byte(cacheMagic), body...)), "n")
		if err != nil {
			return
		}
		again, err := decodeCache(encodeCache("n", resources), "n")
		if err != nil || len(again) != len(resources) {
			t.Fatalf("read %v, then %v, %v", resources, again, err)
		}
	})
}
