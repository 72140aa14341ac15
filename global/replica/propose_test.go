package replica

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

func TestOutcomeStaysUnknown(t *testing.T) {
	for what, c := range map[string]struct {
		attempts []error
		want     error
	}{
		"refused":                  {[]error{ErrRefused}, ErrRefused},
		"not the leader, then not": {[]error{errNotLeader, ErrRefused}, ErrRefused},
		"unknown, then refused":    {[]error{ErrUnknown, errNotLeader, ErrRefused}, ErrUnknown},
		"unknown, then done":       {[]error{ErrUnknown, errNotLeader, nil}, nil},
	} {
		n := 0
		_, err := persist(t.Context(), func() (*pb.CommandResult, error) {
			n++
			return nil, c.attempts[n-1]
		})
		if !errors.Is(err, c.want) || c.want == ErrUnknown && errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// What a leader refuses is a refusal at the replica that asked, and ends a replica that joins by itself.
func TestRefusalOfTheLeaderIsARefusal(t *testing.T) {
	if err := refusedThere(status.Error(codes.InvalidArgument, "no")); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if err := refusedThere(status.Error(codes.Unavailable, "no")); errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}
