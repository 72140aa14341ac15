package ingest

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// Proposer orders commands; *replica.Replica is one.
type Proposer interface {
	Propose(ctx context.Context, command *pb.Command) (*pb.CommandResult, error)
}

// maxEntryBytes bounds one raft entry; a part that is larger travels alone.
const maxEntryBytes = 1 << 20

// coalescer merges the parts that many sessions submit into few raft entries. A part that comes alone leaves at
// once; those that come while a proposal is in flight leave together in the next. Every session waits for its own
// part, so at most one part of each session waits.
type coalescer struct {
	proposer Proposer
	submit   chan *submission
	entries  func(parts int) // observes
}

type submission struct {
	part    *pb.CommandPart
	bytes   int
	outcome chan outcome // buffered
}

type outcome struct {
	index   uint64
	applied bool
	err     error
}

func newCoalescer(p Proposer, observe func(int)) *coalescer {
	return &coalescer{proposer: p, submit: make(chan *submission), entries: observe}
}

var errStopped = errors.New("controller stops; nothing was changed")

// do has the part ordered, together with others. An error is the proposal's.
func (c *coalescer) do(ctx context.Context, part *pb.CommandPart) (index uint64, applied bool, err error) {
	s := &submission{part, proto.Size(part), make(chan outcome, 1)}
	select {
	case c.submit <- s:
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	}
	select {
	case o := <-s.outcome:
		return o.index, o.applied, o.err
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	}
}

// run is the loop: collect, propose, tell. One proposal is in flight at a time.
func (c *coalescer) run(ctx context.Context) error {
	var waiting []*submission
	done := make(chan struct{}, 1)
	inFlight := false
	for {
		if !inFlight && len(waiting) > 0 {
			batch := fill(waiting)
			waiting = append([]*submission(nil), waiting[len(batch):]...)
			inFlight = true
			go func() {
				c.propose(ctx, batch)
				done <- struct{}{}
			}()
		}
		select {
		case s := <-c.submit:
			waiting = append(waiting, s)
		case <-done:
			inFlight = false
		case <-ctx.Done():
			if inFlight {
				<-done
			}
			for _, s := range waiting {
				s.outcome <- outcome{err: errStopped}
			}
			return nil
		}
	}
}

// fill returns the longest prefix that fits into one entry, at least one.
func fill(waiting []*submission) []*submission {
	total := 0
	for i, s := range waiting {
		if total += s.bytes; total > maxEntryBytes && i > 0 {
			return waiting[:i]
		}
	}
	return waiting
}

func (c *coalescer) propose(ctx context.Context, batch []*submission) {
	command := &pb.Command{}
	for _, s := range batch {
		command.Parts = append(command.Parts, s.part)
	}
	c.entries(len(batch))
	result, err := c.proposer.Propose(ctx, command)
	if err == nil && len(result.GetApplied()) != len(batch) {
		err = fmt.Errorf("proposal of %d parts has %d results", len(batch), len(result.GetApplied()))
	}
	for i, s := range batch {
		o := outcome{err: err}
		if err == nil {
			o.index, o.applied = result.GetIndex(), result.GetApplied()[i]
		}
		s.outcome <- o
	}
}
