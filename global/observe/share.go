package observe

import (
	"context"
	"sync"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// ShareEvery is how often replicas tell each other what they observe.
const ShareEvery = time.Second

// Sharer sends one board to the other replicas.
type Sharer struct {
	Board *Board
	// Send delivers to one replica.
	Send func(ctx context.Context, replica string, o *pb.Observations) error
	// Replicas are the members, this one included or not.
	Replicas func() []string
	// Applied is the local index.
	Applied func() uint64
	// State is what the local state sums up to at an index; nil: it is not told.
	State func() (index, sum uint64)
	// Registered tells whether a cluster still exists.
	Registered func(mesh.ClusterID) bool
}

// Run shares every second until ctx is done. A replica that cannot be reached is simply tried again: what it
// misses is in the next state.
func (s *Sharer) Run(ctx context.Context) error {
	ticker := time.NewTicker(ShareEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.share(ctx)
		}
	}
}

func (s *Sharer) share(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ShareEvery)
	defer cancel()
	ids := make(map[string]bool)
	messages := s.Board.Observations(time.Now(), s.Applied())
	if s.State != nil {
		for _, o := range messages {
			o.StateIndex, o.StateSum = s.State()
			o.StateSchema = meshpb.Schema()
		}
	}
	var group sync.WaitGroup
	for _, id := range s.Replicas() {
		ids[id] = true
		if id != s.Board.replica {
			group.Go(func() {
				for _, o := range messages {
					if s.Send(ctx, id, o) != nil {
						return // tried again in a second
					}
				}
			})
		}
	}
	group.Wait()
	s.Board.Forget(func(id string) bool { return ids[id] }, s.Registered)
}
