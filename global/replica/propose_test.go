package replica

import (
	"context"
	"errors"
	"fmt"
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

// What is said in the end is what tells most: not that nobody leads since, or that nobody answered.
func TestWhyNothingWasDone(t *testing.T) {
	full := errors.New("no space left")
	for what, c := range map[string]struct {
		first error
		want  string
	}{
		"unknown":    {fmt.Errorf("%w: %w", ErrUnknown, full), "leader lost before it answered; the change may or may not have been made: no space left"},
		"not leader": {fmt.Errorf("%w: %w", errNotLeader, full), "no leader; nothing was changed, try again (not the leader: no space left)"},
		"nobody":     {errNobodyLeads, "no leader; nothing was changed, try again (not the leader: nobody leads)"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*retryAfter)
		n := 0
		_, err := persist(ctx, func() (*pb.CommandResult, error) {
			if n++; n == 1 {
				return nil, c.first
			}
			if n == 2 && errors.Is(c.first, ErrUnknown) {
				return nil, fmt.Errorf("%w: %w", ErrUnknown, context.DeadlineExceeded)
			}
			return nil, errNobodyLeads
		})
		if cancel(); err.Error() != c.want {
			t.Errorf("%s: %v", what, err)
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
