package authority

import (
	"slices"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/status"
)

// result is the outcome of one item of a batch.
func result(err error) *types.Status {
	if err == nil {
		return &types.Status{Message: "OK"}
	}
	s := status.Convert(err)
	return &types.Status{Code: int32(s.Code()), Message: s.Message()}
}

// pageOf cuts a page out of ordered keys: those after token, at most size; 0 = all. A page's token is its last key.
func pageOf(keys []string, token string, size int32) (page []string, next string) {
	from, found := slices.BinarySearch(keys, token)
	if found {
		from++
	}
	if token == "" {
		from = 0
	}
	keys = keys[from:]
	if size > 0 && len(keys) > int(size) {
		return keys[:size], keys[size-1]
	}
	return keys, ""
}
