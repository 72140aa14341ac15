package serverapi

import (
	"maps"
	"slices"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
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

// asStatus leaves a status as it is and makes Internal of any other error.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, is := status.FromError(err); is {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

// names lists keys in order, which is the order of pages.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
